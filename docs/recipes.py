"""Writes a page for each recipe: its figures, command and config, and pictures of its run where they may be shown.

uv run python docs/recipes.py
"""

import shutil
from pathlib import Path
from runpy import run_path

HERE = Path(__file__).parent
CONFIGS = HERE.parent / "configs"
RESULTS = run_path(str(HERE / "results.py"))
SHOWN = {
    *("acrobot", "associative_recall", "bert_docs", "cartpole", "digit_sensors", "digits", "digits_question"),
    *("gpt_docs", "listops", "listops_tree", "mountain_car", "pendulum", "robots", "spoken_words"),
}
"""Recipes on data that is built in or made in the run, whose pictures may be shown; of others there are figures."""
PICTURES = {
    "samples.png": "What the model sees of the first samples.",
    "sees.png": "Who sees whom.",
    "curves.png": "The metrics while it was trained.",
    "confusion.png": "Predicted against true classes.",
    "scatter.png": "Predicted against true values.",
    "reconstructions.png": "What was filled in.",
    "sweep.png": "Target against achieved return.",
}


def page(name, recipe, pictures):
    """The page of a recipe, in Markdown."""
    figures = recipe["figures"]
    rows = [
        f"| {RESULTS['show_figure'](figure | {'part': ''}, {'part': ''})} | {figure['part']} | {figure['chosen']} |"
        for figure in figures
    ]
    table = ["| figure | part | chosen on these |", "|---|---|---|", *rows] if rows else ["It has not been trained."]
    beside = [
        f"{what}: {shown}."
        for what, shown in (
            ("The best simple model on the same records", RESULTS["show_baseline"](recipe)),
            ("Of others", RESULTS["show_reference"](recipe)),
        )
        if shown
    ]
    how = [] if RESULTS["is_null"](recipe["time"]) else [f"It takes {recipe['time']} ({recipe['machine']})."]
    command = ["```bash", recipe["command"], "```"]
    shown = [line for picture in pictures for line in ("", PICTURES[picture], "", f"![{picture}]({name}/{picture})")]
    config = ["## Config", "", "```yaml", (CONFIGS / f"{name}.yaml").read_text(encoding="utf-8").rstrip(), "```"]
    body = [*table, "", *(line for each in (*beside, *how) for line in (each, "")), *command, *shown, "", *config]
    return "\n".join([f"# {name}", "", f"{recipe['what'][:1].upper()}{recipe['what'][1:]}.", "", *body, ""])


def write(folder, runs):
    """Write the pages into a folder, with pictures of the runs in another that are called as their config."""
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir(parents=True)
    results = RESULTS["read_results"]()
    for name, recipe in results.items():
        pictures = [each for each in PICTURES if name in SHOWN and (runs / name / each).is_file()]
        if pictures:
            (folder / name).mkdir()
        for each in pictures:
            shutil.copy(runs / name / each, folder / name / each)
        (folder / f"{name}.md").write_text(page(name, recipe, pictures), encoding="utf-8")
    listed = "\n".join(results)
    (folder / "index.md").write_text(f"# Recipes\n\n```{{toctree}}\n{listed}\n```\n", encoding="utf-8")


if __name__ == "__main__":
    write(HERE / "recipes", HERE.parent / "runs")
