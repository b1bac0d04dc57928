"""The figures of docs/results.md, the README and the heads of configs, against docs/results.yaml."""

from __future__ import annotations

import datetime
import re
import runpy
from pathlib import Path

import pytest
import yaml

ROOT = Path(__file__).parents[1]
SCRIPT = runpy.run_path(str(ROOT / "docs" / "results.py"))
RESULTS = SCRIPT["read_results"]()
TYPED = yaml.safe_load((ROOT / "docs" / "results.yaml").read_text())
PAGE = (ROOT / "docs" / "results.md").read_text()
CONFIGS = {path.stem: path.read_text() for path in sorted((ROOT / "configs").glob("*.yaml"))}
FIGURE = re.compile(r"(?<![\w.-])(?:-\d[\d,]*(?:\.\d+)?|\d[\d,]*\.\d+|\d+(?= of \d))(?![\w])")
"""A number that is a result: with a decimal point, negative, or so many of a whole; and no seed, step or episode."""
DURATION = re.compile(r"\b(?:(\d+) h )?(?:(\d+) min(?:utes)?\b ?)?(?:(\d+) s(?:econds)?\b)?")


def figures_in(text: str) -> list[str]:
    return [found.replace(",", "") for found in FIGURE.findall(text)]


def seconds_in(text: str) -> list[int]:
    """The durations: 1 h 41 min, 2 min 9 s, about 48 minutes."""
    found = [[int(part or 0) for part in parts] for parts in DURATION.findall(text) if any(parts)]
    return [hours * 3600 + minutes * 60 + seconds for hours, minutes, seconds in found]


def known(name: str) -> set[str]:
    """The figures of a recipe as they are written, those beside it included."""
    recipe = RESULTS[name]
    errors = {figure["standard_error"] for figure in recipe["figures"]}
    others = [each for each in (recipe["baseline"], recipe["reference"]) if each != "null"]
    beside = {each[name] for each in others for name in ("value", "standard_error") if name in each}
    return {figure["value"] for figure in recipe["figures"]} | errors | beside


def part(head: str, label: str) -> str:
    """What the head of a config says under a label."""
    return re.search(rf"^# {label}: (.*(?:\n#   .*)*)", head, re.MULTILINE)[1]


def results_in(head: str) -> list[str]:
    """The figures from its results on, without the times, rates of learning and temperatures that some speak of."""
    text = re.match(r"(#.*\n)+", head)[0].partition("# Result: ")[2].replace(part(head, "Time"), "")
    return figures_in(re.sub(r"(lr:|temperature( of|=)?) *[\d.]+", "", text))


def unknown_in_head(name: str, head: str) -> list[str]:
    return [figure for figure in results_in(head) if figure not in known(name)]


def test_every_config_has_its_results_and_no_other_has_any() -> None:
    assert list(RESULTS) == list(CONFIGS)


@pytest.mark.parametrize("name", TYPED)
def test_a_recipe_says_all_of_its_figures(name: str) -> None:
    recipe = TYPED[name]
    assert {*recipe} - {"note"} == {
        *("what", "command", "seeds", "time", "machine", "date", "commit", "baseline", "reference", "figures")
    }
    assert f"--config configs/{name}.yaml" in recipe["command"]
    if recipe["baseline"] is not None:
        assert {*recipe["baseline"]} - {"standard_error"} == {"value", "what", "command"}
        command = recipe["baseline"]["command"]
        assert command is None or command.startswith(f"anyformer baseline configs/{name}.yaml")
        assert isinstance(recipe["baseline"]["value"], int | float)
    assert recipe["reference"] is None or {*recipe["reference"]} == {"value", "what", "source"}
    for figure in recipe["figures"]:
        needed, more = {"metric", "value", "standard_error", "part", "chosen"}, {"seeds", "date", "commit", "in"}
        assert needed <= {*figure} <= needed | more
        assert isinstance(figure["value"], int | float) and isinstance(figure["standard_error"], float | None)
        assert figure["chosen"] in ("nothing", "settings", "settings and step")
        assert {*figure.get("in", [])} <= {"table", "head", "below"}
        of = recipe | figure
        assert isinstance(of["date"], datetime.date | None) and re.fullmatch(r"[0-9a-f]{7}", of["commit"] or "0" * 7)
        assert all(isinstance(seed, int) for seed in of["seeds"])


def test_the_table_is_written_from_the_results() -> None:
    assert SCRIPT["written"](PAGE, RESULTS) == PAGE, "run: python docs/results.py"
    changed = PAGE.replace("0.986 ± 0.002", "0.985 ± 0.002")
    assert changed != PAGE and SCRIPT["written"](changed, RESULTS) == PAGE


def test_a_figure_without_its_error_or_of_other_records_is_written_as_such() -> None:
    first = {"metric": "accuracy", "value": "0.90", "standard_error": "0.01", "part": "test"}
    assert SCRIPT["show_figure"](first, first) == "accuracy: 0.90 ± 0.01"
    other = first | {"standard_error": "null", "part": "validation"}
    assert SCRIPT["show_figure"](other, first) == "accuracy: 0.90 (validation)"


def test_a_baseline_that_is_better_is_written_as_such() -> None:
    def shown(metric: str, ours: str, theirs: str) -> str:
        baseline = {"value": theirs, "standard_error": "0.01", "what": "a forest"}
        return SCRIPT["show_baseline"]({"figures": [{"metric": metric, "value": ours}], "baseline": baseline})

    assert shown("accuracy", "0.90", "0.91") == "**better:** a forest: 0.91 ± 0.01"
    assert shown("accuracy", "0.90", "0.90") == shown("accuracy", "1.0", "0.90") == "a forest: 0.90 ± 0.01"
    assert shown("nats a character", "1.5", "1.4") == "**better:** a forest: 1.4 ± 0.01"
    assert shown("word error rate", "0.1", "0.2") == "a forest: 0.2 ± 0.01"
    assert shown("mean return", "-180.5", "-151") == "**better:** a forest: -151 ± 0.01"


def test_the_figures_of_the_readme_are_those_of_the_recipe_on_their_line() -> None:
    lines = (ROOT / "README.md").read_text().splitlines()
    shown = [(name, figures_in(line)) for line in lines for name in re.findall(r"\(`(\w+)\.yaml`\)", line)]
    assert len(shown) == 5
    assert [(name, figures) for name, figures in shown if not figures or {*figures} - known(name)] == []


def test_the_table_of_many_tasks_in_one_has_the_figures_of_its_recipe() -> None:
    """It is laid out by hand."""
    rows = re.search(r"^\| task \| steps \|.*\n((?:\|.*\n)+)", PAGE, re.MULTILINE)[1]
    found = figures_in(rows)
    below = {f["value"] for f in RESULTS["generalist"]["figures"] if "below" in f.get("in", [])}
    assert len(found) == 11 and {*found} == below


@pytest.mark.parametrize("name", CONFIGS)
def test_the_head_of_a_config_has_the_figures_of_its_results(name: str) -> None:
    recipe, head = RESULTS[name], CONFIGS[name]
    assert unknown_in_head(name, head) == []
    in_head = [figure["value"] for figure in recipe["figures"] if SCRIPT["stands_in"](figure, "head")]
    assert {*in_head} <= {*results_in(head)}
    assert recipe["command"] in part(head, "Command")
    assert seconds_in(recipe["time"]) == seconds_in(part(head, "Time"))[:1]


def test_a_head_that_differs_is_seen() -> None:
    head = CONFIGS["esol"]
    assert unknown_in_head("esol", head.replace("0.584", "0.594")) == ["0.594"]
    assert unknown_in_head("pendulum", CONFIGS["pendulum"].replace("-1,230", "-1,231")) == ["-1231"]
    assert figures_in("the goal in 100 of 100 episodes, -80.0 (--seed_everything 0, after 2,500 steps), D4RL-v2.0") == [
        "100",
        "-80.0",
    ]
    assert seconds_in("about 48 minutes, 1 h 41 min of it, 2 min 9 s on 2 cores, 70 seconds") == [2880, 6060, 129, 70]
