"""Planes through pixel space: decision regions, by predictions on a grid."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import torch
from jaxtyping import Float
from matplotlib.axes import Axes
from matplotlib.colors import to_rgba
from scipy.ndimage import distance_transform_edt
from torch import Tensor, nn

from fsboundary.core.checks import check_integer
from fsboundary.core.domain import Domain
from fsboundary.core.errors import ArgumentError
from fsboundary.core.rows import TensorOrArray
from fsboundary.geometry.regions.slices import Plane, Window, domain_polygon, plane_through
from fsboundary.modes import in_standard_modes
from fsboundary.pixels.checks import check_bounds, check_pixels
from fsboundary.pixels.model_calls import first_logits
from fsboundary.plot.arguments import check_names, shorten
from fsboundary.plot.planes import (
    check_window,
    explain,
    grey_outside,
    mark,
    name_regions,
    window_around,
)
from fsboundary.plot.style import StyleName, check_place, place
from fsboundary.space import FeatureSpace, space_of

NOTHING = -1
"""Class of a cell outside the pixel bounds."""


def classes_on_grid(
    space: FeatureSpace,
    plane: Plane,
    window: Window,
    like: Tensor,
    bounds: tuple[float, float],
    resolution: int,
    batch_size: int,
) -> Tensor:
    """Return the predicted class at the centre of each cell, rows upwards.

    Cells whose centre is outside the pixel bounds are not evaluated: their class is NOTHING.

    Parameters
    ----------
    space : FeatureSpace
    plane : Plane
        Plane through flattened images.
    window : tuple of float
    like : Tensor (C, H, W)
        Image with the shape, dtype and device of those that the model takes.
    bounds : (float, float)
    resolution : int
        Number of cells along each side.
    batch_size : int
    """
    left, right, bottom, top = window
    step = (torch.arange(resolution, dtype=torch.float64) + 0.5) / resolution
    rows, columns = bottom + step * (top - bottom), left + step * (right - left)
    spots = torch.cartesian_prod(rows, columns).flip(1)
    low, high = bounds
    slack = 1e-9 * (high - low)  # the plane's own points may be outside by rounding
    found = torch.full((len(spots),), NOTHING)
    for part in torch.arange(len(spots)).split(batch_size):
        pixels = plane.lift(spots[part].to(plane.origin.device))
        inside = ((pixels >= low - slack) & (pixels <= high + slack)).all(dim=1).cpu()
        if bool(inside.any()):
            images = pixels[inside.to(pixels.device)].clamp(low, high)
            images = images.reshape(-1, *like.shape).to(like)
            found[part[inside]] = first_logits(space, images, batch_size).argmax(dim=1).cpu()
    return found.reshape(resolution, resolution)


def _region(k: int, cells: Tensor, window: Window) -> dict[str, Any]:
    """Return the fraction of a class of the window, and the point that is farthest from others."""
    own = np.pad((cells == k).numpy(), 1)  # the edges of the window are edges of the region
    depth = distance_transform_edt(own)[1:-1, 1:-1]
    row, column = np.unravel_index(int(depth.argmax()), depth.shape)
    left, right, bottom, top = window
    size = len(cells)
    centre = [
        left + (column + 0.5) / size * (right - left),
        bottom + (row + 0.5) / size * (top - bottom),
    ]
    fraction = float((cells == k).double().mean())
    return {
        "class": k,
        "window_fraction": fraction,
        "window_fraction_in_domain": fraction,
        "centre_in_domain": centre,
    }


@in_standard_modes
def plane_pixels(
    model: nn.Module | FeatureSpace,
    images: Float[TensorOrArray, "3 C H W"],
    *,
    resolution: int = 96,
    window: Window | None = None,
    bounds: tuple[float, float] = (0, 1),
    batch_size: int = 256,
    class_names: Sequence[str] | None = None,
    ax: Axes | None = None,
    style: StyleName | None = None,
) -> Axes:
    """Draw a plane through three images: the predicted classes on a grid of images.

    In pixel space the regions are not polyhedra, so nothing between the grid's points is known;
    only the edge of the pixel bounds is exact. Hatched is what lies outside them: there is no such
    image. For exact regions in feature space see :func:`plane`.

    Parameters
    ----------
    model : nn.Module or FeatureSpace
        Classifier with K classes.
    images : Tensor or array (3, C, H, W)
        For example an image, its flip image, and an image of the class across. The first is the
        origin, the second is on the horizontal axis.
    resolution : int
        Number of cells along each side, at most 1000; the model is called for each cell.
    window : tuple of float, optional
        Left, right, bottom and top, in pixel units (L2) from the first image; by default a square
        around the three images.
    bounds : (float, float)
        Range of the pixels.
    batch_size : int
        Number of images per forward pass.
    class_names : sequence of str, optional
        K names; numbers by default.
    ax, style
        As for :func:`plane`.

    Returns
    -------
    matplotlib.axes.Axes

    Raises
    ------
    ArgumentError
        Wrong types, shapes or pixels, or images that are not finite.

    Examples
    --------
    >>> import torch
    >>> import fsboundary as fsb
    >>> model = torch.nn.Sequential(torch.nn.Flatten(), torch.nn.Linear(16, 3)).eval()
    >>> ax = fsb.plot.plane_pixels(model, torch.rand(3, 1, 4, 4), resolution=12)
    >>> ax.get_title()
    'predictions on a grid of 12 × 12'
    """
    space = space_of(model)
    bounds = check_bounds(bounds)
    pixels = check_pixels(images, bounds, finite_fix="choose finite images", nonempty=True)
    if len(pixels) != 3:
        got, fix = f"{len(pixels)} images", "pass torch.stack([image, flip_image, other])"
        raise ArgumentError("images", got, "3 images", fix)
    check_integer("resolution", resolution, 2, 1000)
    check_integer("batch_size", batch_size)
    shown = None if window is None else check_window(window)
    if shown == "ball":
        raise ArgumentError("window", "'ball'", "four numbers, or None", "pass four numbers")
    check_place(ax, style)
    points = dict(zip(("image", "second", "third"), pixels.double().flatten(1), strict=True))
    plane = plane_through(*points.values())
    at = {name: plane.locate(point) for name, point in points.items()}
    shown = window_around(torch.stack(list(at.values()))) if shown is None else shown
    own = first_logits(space, pixels, batch_size)
    names = check_names(class_names, own.shape[1])
    cells = classes_on_grid(space, plane, shown, pixels[0], bounds, resolution, batch_size)
    width = len(plane.origin)
    low, high = (torch.full((width,), b, dtype=torch.float64) for b in bounds)
    present = [k for k in cells.unique().tolist() if k != NOTHING]
    regions = [_region(k, cells, shown) for k in present]
    view: dict[str, Any] = {
        "window": shown,
        "points": {name: point.tolist() for name, point in at.items()},
        "domain": domain_polygon(Domain.box(low, high), plane, shown).tolist(),
        "regions": regions,
    }
    axes, chosen = place(ax, style, 5.0, 5.6)
    colours = chosen.class_colours(present, len(names))
    table = np.full((resolution, resolution, 4), 0.0)
    for k in present:
        table[(cells == k).numpy()] = to_rgba(colours[k], 0.45)
    left, right, bottom, top = shown
    axes.imshow(table, extent=shown, origin="lower", interpolation="nearest", zorder=1)
    axes.set(xlim=(left, right), ylim=(bottom, top), aspect="equal")
    axes.spines[["left", "bottom"]].set_visible(False)
    grey_outside(axes, view, chosen)
    name_regions(axes, view, names, chosen)
    mark(axes, view["points"], chosen)
    axes.locator_params(nbins=4)
    axes.set(xlabel="pixel units", ylabel="pixel units")
    axes.set_title(f"predictions on a grid of {resolution} × {resolution}")
    words = {
        name: f"{word} image ({shorten(names[k], 16)})"
        for name, word, k in zip(
            points, ("first", "second", "third"), own.argmax(dim=1).tolist(), strict=True
        )
    }
    explain(axes, view, words, None, chosen, outside="outside the pixel bounds")
    return axes
