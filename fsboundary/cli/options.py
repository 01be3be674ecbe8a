"""Options that several commands take, and the values of options of plugins."""

from __future__ import annotations

import ast
from collections.abc import Sequence
from pathlib import Path
from typing import Annotated, Any

import typer

Out = Annotated[Path, typer.Option(help="HTML file to write.", dir_okay=False)]
Model = Annotated[
    str,
    typer.Option(
        metavar="MODULE:FACTORY",
        help="Function that is called without arguments and returns the model, such as "
        "mine.nets:make; the current folder is searched last. The model takes pixels in [0, 1]: "
        "put normalisation into it, or name it with --preprocess.",
    ),
]
Weights = Annotated[
    Path | None,
    typer.Option(
        help="Weights: a safetensors file, or a .pt, .pth or .bin file of a state dict, read "
        "without running code of it. Without it, the model keeps those of the function.",
        exists=True,
        dir_okay=False,
    ),
]
Preprocess = Annotated[
    str | None,
    typer.Option(
        metavar="MODULE:FACTORY",
        help="Function that is called without arguments and returns what turns pixels in [0, 1] "
        "into the inputs of the model, such as a module that normalises. It must be "
        "differentiable; distances in pixels are those before it.",
    ),
]
Head = Annotated[
    str | None,
    typer.Option(
        metavar="NAME",
        help="Dotted name of the last linear layer, such as classifier.3. Default: found in a "
        "traced pass.",
    ),
]
DomainOption = Annotated[
    str,
    typer.Option(
        metavar="auto|unbounded|nonnegative",
        help="Features that the network can produce: auto takes the limits that its operations "
        "prove, such as those of a ReLU.",
    ),
]
Labels = Annotated[
    Path | None,
    typer.Option(
        help="Labels of --data, instead of its own: a text file with one class per line, in the "
        "order of the images, or lines of file,class; or an .npy file of numbers. A class is a "
        "name or a number from 0; -1 or nothing for none.",
        exists=True,
        dir_okay=False,
    ),
]
SizeOption = Annotated[
    str | None,
    typer.Option(
        metavar="SIDE|RESIZE:CROP",
        help="Pixels: 224 resizes the shorter side to 224 and cuts a square out of the centre, "
        "256:224 resizes to 256 first. Images of a folder may then have any size.",
    ),
]
Names = Annotated[
    Path | None,
    typer.Option(
        "--class-names",
        help="Names of all classes in the order of the model's outputs: a text file with one per "
        "line (tabs separate further names of a class), or JSON such as "
        "imagenet_class_index.json. Subfolders are then classes by name, and may be some of them; "
        "without it they are numbered in sorted order.",
        exists=True,
        dir_okay=False,
    ),
]
BatchSize = Annotated[int, typer.Option(min=1, help="Images per forward pass.")]
DATA = (
    "an npz file with the arrays images, (N, C, H, W) or (N, H, W), and optionally labels and "
    "class_names, or a folder of images of one size (see --size), with a subfolder per class if "
    "they have labels"
)
Json = Annotated[
    Path | None,
    typer.Option("--json", help="JSON file for the numbers of the report.", dir_okay=False),
]
Force = Annotated[
    bool,
    typer.Option(
        "--force",
        help="Replace existing files; without it, a terminal is asked, and else they are kept.",
    ),
]
Open = Annotated[bool, typer.Option("--open", help="Open the report in the browser.")]
Quiet = Annotated[bool, typer.Option("--quiet", help="Do not show progress.")]
PluginOptions = list[str] | None

BUILT_IN = {
    "finder": "dual_newton: max_programs=2000 (linear programs per call); linearised: starts=2, "
    "directions=32, thirds=8, seed=0; cvxpy: solver=CLARABEL, accuracy=1e-10; closed_form: none",
    "hull solver": "active_set: max_added=8, candidates=24, scout_stride=8, scout_candidates=64, "
    "batch_size=4096, block_size=512 (numbers of training images or of rows); away_steps: "
    "max_added=4, inner_steps=100; interior_point, nnls: max_elements=268435456 (numbers in "
    "memory); cvxpy: solver=CLARABEL, accuracy=1e-13, max_elements=16777216",
    "extractor": "head_input: head=NAME, output=NAME (which output is the logits), "
    "multi_label=False",
}
"""Options of the built-in plugins and their defaults. Written out, because help loads no plugin."""


def plugin_option(what: str) -> Any:
    """Return the declaration of a repeatable option NAME=VALUE of a plugin."""
    known = f" {BUILT_IN[what]}." if what in BUILT_IN else ""
    return typer.Option(metavar="NAME=VALUE", help=f"Option of the {what}; may be repeated.{known}")


def parse_options(flag: str, pairs: Sequence[str]) -> dict[str, Any]:
    """Parse ``name=value`` pairs to keyword arguments; values are Python literals or else text."""
    options: dict[str, Any] = {}
    for pair in pairs:
        name, equals, text = pair.partition("=")
        if not equals or not name.isidentifier():
            raise typer.BadParameter(f"got {pair!r}; wanted NAME=VALUE", param_hint=flag)
        try:
            options[name] = ast.literal_eval(text)
        except (ValueError, SyntaxError):
            options[name] = text
    return options
