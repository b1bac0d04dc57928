"""How the pages are built: `uv run --group docs sphinx-build docs site`."""

import runpy
from pathlib import Path

HERE = Path(__file__).parent

project = "anyformer"
extensions = ["myst_parser", "sphinx.ext.autodoc", "sphinx.ext.autosummary", "sphinx.ext.napoleon"]
html_theme = "furo"
html_title = "anyformer"
html_copy_source = False
templates_path = ["_templates"]
myst_heading_anchors = 3
autodoc_inherit_docstrings = False
autodoc_typehints = "none"
autodoc_member_order = "bysource"
autosummary_generate = True
suppress_warnings = [
    # Docstrings are written for the source: lists without blank lines before them, names in single backticks.
    "docutils",
    "ref.python",
    # Links to files of the repository, which are no pages.
    "myst.xref_missing",
]

# The pages of the recipes are made anew in each build, from docs/results.yaml, configs/ and whichever runs/ are there.
runpy.run_path(str(HERE / "recipes.py"))["write"](HERE / "recipes", HERE.parent / "runs")
