"""How Sphinx builds these pages: MyST's Markdown under the furo theme, nothing fetched."""

from __future__ import annotations

import tomllib
from pathlib import Path

_PROJECT = tomllib.loads((Path(__file__).parents[1] / "pyproject.toml").read_text())

project = "amqtask"
author = "amqtask contributors"
copyright = author
release = _PROJECT["project"]["version"]
version = release.rpartition(".")[0]

extensions = ["myst_parser", "sphinx.ext.autodoc", "sphinx.ext.napoleon"]
exclude_patterns = ["_build"]

myst_enable_extensions = ["colon_fence", "deflist"]
# so that a page can link to another one's heading
myst_heading_anchors = 3

# a name in code that refers to nothing is a warning, and warnings fail the build
nitpicky = True
autodoc_typehints = "description"
autodoc_member_order = "bysource"
napoleon_google_docstring = True
napoleon_numpy_docstring = False

html_theme = "furo"
html_title = f"amqtask {release}"
