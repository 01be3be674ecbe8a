from __future__ import annotations

from fsboundary import __version__

project = "fsboundary"
author = "The fsboundary developers"
project_copyright = "2026, The fsboundary developers"
version = release = __version__

extensions = ["myst_nb", "numpydoc", "sphinx.ext.autodoc", "sphinx.ext.viewcode"]
exclude_patterns = ["_build"]

# only pages with a kernel in their header are executed: the tutorials and the page on pictures
nb_execution_mode = "force"
nb_execution_raise_on_error = True
nb_execution_timeout = 600  # seconds per cell; a busy machine takes minutes for some
# progress bars, and hints of packages about notebooks
nb_output_stderr = "remove"
myst_heading_anchors = 3

# types stand in the signatures' place in the docstrings, with shapes and units
autodoc_typehints = "none"
autodoc_member_order = "bysource"
# the pages list the members that users need; numpydoc's own tables would repeat them
numpydoc_show_class_members = False

html_theme = "furo"
html_title = f"fsboundary {release}"
html_show_sourcelink = False
html_static_path = ["_static"]
html_css_files = ["tables.css"]
