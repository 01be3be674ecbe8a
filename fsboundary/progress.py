"""The progress bar of tqdm: a widget in notebooks that can show one, else text."""

from __future__ import annotations

import warnings

from tqdm import TqdmWarning

with warnings.catch_warnings():
    # without ipywidgets, a notebook shows text too, and that needs no warning at each import
    warnings.simplefilter("ignore", TqdmWarning)
    from tqdm.auto import tqdm

__all__ = ["tqdm"]
