from __future__ import annotations

from numpydoc.xref import DEFAULT_LINKS

import fsboundary
from fsboundary import __version__

project = "fsboundary"
author = "The fsboundary developers"
project_copyright = "2026, The fsboundary developers"
version = release = __version__

extensions = [
    "myst_nb",
    "numpydoc",
    "sphinx.ext.autodoc",
    "sphinx.ext.autosummary",
    "sphinx.ext.intersphinx",
    "sphinx.ext.viewcode",
    "sphinx_copybutton",
]
exclude_patterns = ["_build", "inventories", "_templates"]
templates_path = ["_templates"]

# The build needs no network, so the few names of other projects that occur stand in inventories
# written by hand, in Sphinx's text format: name, kind, page.
intersphinx_mapping = {
    "torch": ("https://docs.pytorch.org/docs/stable/", "inventories/torch.inv"),
    "captum": ("https://captum.ai/api/", "inventories/captum.inv"),
    "numpy": ("https://numpy.org/doc/stable/", "inventories/numpy.inv"),
}

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
# the template of a class lists its members; numpydoc's own tables would repeat them
numpydoc_show_class_members = False
# types in docstrings become links
numpydoc_xref_param_type = True
numpydoc_xref_aliases = {
    "Tensor": "torch.Tensor",
    "Module": "torch.nn.Module",
    "nn.Module": "torch.nn.Module",
    "DataLoader": "torch.utils.data.DataLoader",
    "Dataset": "torch.utils.data.Dataset",
    "array": "numpy.ndarray",
    **{
        name: f"fsboundary.{name}"
        for name in fsboundary.__all__
        if name[0].isupper() and name != "Status"
    },
}
numpydoc_xref_ignore = "all"
DEFAULT_LINKS.clear()  # numpydoc's own are to pages of Python, of which there is no inventory here

# functions and classes may differ in case only, and some file systems do not
autosummary_filename_map = {
    f"fsboundary.{name}": f"fsboundary.{name}-class"
    for name in ("Coverage", "Extrapolation", "Partition", "Scores", "Triage")
}

copybutton_exclude = ".linenos, .gp, .go"  # the prompts and outputs of examples

html_theme = "furo"
html_title = f"fsboundary {release}"
html_show_sourcelink = False
html_static_path = ["_static"]
html_css_files = ["tables.css"]
