"""Writes the table of results.md from results.yaml.

uv run python docs/results.py
"""

import re
from pathlib import Path

import yaml

HERE = Path(__file__).parent
BEGIN, END = "<!-- written by docs/results.py from docs/results.yaml -->\n", "<!-- end of what it writes -->\n"
COLUMNS = ("config", "what", "result", "part", "chosen on these", "baseline", "of others", "time", "machine")
LOWER = re.compile(r"\b(error|nats|bits)\b")
"""Metrics of which less is better."""


def read_results():
    """The recipes by name. All values are texts, as they are written: 0.990 and not 0.99."""
    return yaml.load((HERE / "results.yaml").read_text(encoding="utf-8"), Loader=yaml.BaseLoader)


def is_null(value):
    return value in ("null", [])


def stands_in(figure, place):
    return place in figure.get("in", ["table", "head"])


def show_figure(figure, first):
    error = figure["standard_error"]
    shown = f"{figure['metric']}: {figure['value']}{'' if is_null(error) else f' ± {error}'}"
    return shown if figure["part"] == first["part"] else f"{shown} ({figure['part']})"


def is_behind(recipe):
    """Whether the baseline is better than the figure that counts."""
    first, ours, theirs = recipe["figures"][0], float(recipe["figures"][0]["value"]), float(recipe["baseline"]["value"])
    return theirs < ours if LOWER.search(first["metric"]) else theirs > ours


def show_baseline(recipe):
    baseline = recipe["baseline"]
    if is_null(baseline):
        return ""
    error = f" ± {baseline['standard_error']}" if "standard_error" in baseline else ""
    return f"{'**better:** ' if is_behind(recipe) else ''}{baseline['what']}: {baseline['value']}{error}"


def show_reference(recipe):
    reference = recipe["reference"]
    return "" if is_null(reference) else f"{reference['what']}: {reference['value']} ({reference['source']})"


def show_row(name, recipe):
    figures = recipe["figures"]
    shown = [show_figure(figure, figures[0]) for figure in figures if stands_in(figure, "table")]
    seeds = recipe["seeds"]
    of_seeds = f"seed{'s' if len(seeds) > 1 else ''} {', '.join(seeds)}"
    result = f"{recipe['note'] if 'note' in recipe else '; '.join(shown)}, {of_seeds}"
    part, chosen = ("", "") if "note" in recipe else (figures[0]["part"], figures[0]["chosen"])
    last = show_baseline(recipe), show_reference(recipe), recipe["time"], recipe["machine"]
    return f"| {' | '.join((f'`{name}.yaml`', recipe['what'], result, part, chosen, *last))} |"


def table(results):
    """The lines of the table: a row for each recipe that has figures for it."""
    head = [f"| {' | '.join(COLUMNS)} |", f"|{'---|' * len(COLUMNS)}"]
    shown = {name: recipe for name, recipe in results.items() if is_shown(recipe)}
    return [*head, *(show_row(name, recipe) for name, recipe in shown.items())]


def is_shown(recipe):
    return "note" in recipe or any(stands_in(figure, "table") for figure in recipe["figures"])


def written(page, results):
    """The text of results.md with the table in its place."""
    before, _, rest = page.partition(BEGIN)
    _, _, after = rest.partition(END)
    return f"{before}{BEGIN}{chr(10).join(table(results))}\n{END}{after}"


if __name__ == "__main__":
    path = HERE / "results.md"
    path.write_text(written(path.read_text(encoding="utf-8"), read_results()), encoding="utf-8")
