from __future__ import annotations

from fsboundary import __version__

project = "fsboundary"
author = "The fsboundary developers"
project_copyright = "2026, The fsboundary developers"
version = release = __version__

extensions = ["myst_parser", "numpydoc", "sphinx.ext.autodoc", "sphinx.ext.viewcode"]
exclude_patterns = ["_build"]
myst_heading_anchors = 3

# types stand in the signatures' place in the docstrings, with shapes and units
autodoc_typehints = "none"
autodoc_member_order = "bysource"
# the pages list the members that users need; numpydoc's own tables would repeat them
numpydoc_show_class_members = False

html_theme = "furo"
html_title = f"fsboundary {release}"
html_show_sourcelink = False
