"""Certified limits of median-smoothed values, such as distances from decision boundaries."""

from __future__ import annotations

import os
from collections.abc import Callable
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor

from fsboundary.core.checks import check_integer, check_number, describe
from fsboundary.core.errors import ArgumentError
from fsboundary.core.results import SmoothedDistances
from fsboundary.core.rows import TensorOrArray
from fsboundary.core.status import Status
from fsboundary.geometry.bounds.confidence import quantile_rank
from fsboundary.modes import in_standard_modes
from fsboundary.pixels.certification.journal import check_resume, open_journal
from fsboundary.pixels.certification.noise import NoisyCopies
from fsboundary.pixels.checks import check_bounds, check_pixels
from fsboundary.progress import tqdm


@in_standard_modes
@torch.no_grad()
def smoothed_distances(
    module: Callable[[Tensor], Tensor],
    images: Float[TensorOrArray, "B C H W"],
    *,
    sigma: float,
    radius: float,
    samples: int = 1000,
    alpha: float = 1e-3,
    bounds: tuple[float, float] = (0, 1),
    seed: int = 0,
    batch_size: int = 256,
    resume: str | os.PathLike[str] | None = None,
    show_progress: bool = False,
) -> SmoothedDistances:
    """Return certified limits of median-smoothed values of a module, **not of the module itself**.

    The smoothed value of an image is the median of the module's values at the image with Gaussian
    noise. On all images within an L2 distance of `radius` it stays between two quantiles of the
    values at this image's own noisy copies (Chiang et al., "Detection as regression: certified
    object detection with median smoothing", NeurIPS 2020), which order statistics of the sample
    enclose. Only forward passes are needed. Each entry fails with probability at most `alpha`.

    Parameters
    ----------
    module : nn.Module or callable
        Maps images (N,C,H,W) to values (N,T), for example
        :class:`fsboundary.attr.BoundaryDistance`.
    images : Tensor or array (B, C, H, W)
        Floating-point images within `bounds`. Their noisy copies are not clipped: noise leaves the
        bounds of pixels.
    sigma : float
        Standard deviation of the noise of each pixel, in pixel units.
    radius : float
        L2 distance in pixel units, at least 0. Limits exist up to about 2.4 sigma by default, up to
        more with more samples.
    samples : int
        Number of noisy copies per image.
    alpha : float
        Probability of error per entry.
    bounds : (float, float)
        Smallest and largest pixel value of `images`. The limits do not depend on it.
    seed : int
        Each image has its own generator, seeded with `seed` and the image.
    batch_size : int
        Number of noisy copies per pass; only one image's copies are in memory.
    resume : path, optional
        A file for the limits of finished images. A run with the same module, sigma, radius, seed,
        number of samples and alpha resumes from it; a last line that was not finished is removed.
        The module is recognised by its parameters and by its values at the images.
    show_progress : bool

    Returns
    -------
    SmoothedDistances
        On the device of `images`.

    Raises
    ------
    ArgumentError
        Wrong types or shapes, pixels out of bounds, or `resume` is a file of another module or run.
    DataError
        The file `resume` is damaged, or cannot be read or written.

    Examples
    --------
    >>> import torch
    >>> import fsboundary as fsb
    >>> model = torch.nn.Sequential(torch.nn.Flatten(), torch.nn.Linear(4, 3)).eval()
    >>> distance = fsb.attr.BoundaryDistance(model)
    >>> found = fsb.pixels.smoothed_distances(
    ...     distance, torch.rand(2, 1, 2, 2), sigma=0.1, radius=0.05
    ... )
    >>> bool((found.lower <= found.median).all() and (found.median <= found.upper).all())
    True
    """
    if not callable(module):
        raise ArgumentError(
            "module",
            describe(module),
            "a module that maps images (N,C,H,W) to values (N,T)",
            "pass fsboundary.attr.BoundaryDistance(model), for example",
        )
    pixels = check_pixels(images, check_bounds(bounds))
    check_number("sigma", sigma, 0, fix="pass a noise in pixel units, such as 0.1")
    check_number("radius", radius, 0, closed="low", fix="pass a distance in pixel units")
    check_number("alpha", alpha, 0, 1, fix="pass 0.001")
    check_integer("samples", samples)
    check_integer("batch_size", batch_size)
    check_integer("seed", seed, None)
    check_resume(resume)
    sigma, radius, alpha = float(sigma), float(radius), float(alpha)
    rank = quantile_rank(radius / sigma, samples, alpha)
    finite = torch.isfinite(pixels).flatten(1).all(dim=1)
    rows = finite.nonzero()[:, 0].tolist()
    tables: dict[str, Tensor] = {}
    bar = tqdm(total=len(rows) * samples, unit="copy", disable=not show_progress)
    options = {"sigma": sigma, "radius": radius, "alpha": alpha, "samples": samples, "seed": seed}
    with open_journal(resume, "distances", module, options, _read) as journal, bar:
        for row in rows:
            copies = NoisyCopies(pixels[row], sigma, seed)
            name, largest = copies.digest, 0.0
            if resume is not None:
                here = _values(module, pixels[row : row + 1])
                name = f"{name} {here.shape[1]}"  # of another width, it is computed again
                largest = float(here.nan_to_num(-torch.inf).clamp(-_LARGE, _LARGE).amax())
            found = journal.find(name, largest)
            if found is None:
                parts = []
                for batch in copies.take(samples, batch_size):
                    parts.append(_values(module, batch).to(pixels.device))
                    bar.update(len(batch))
                found = _limits(torch.cat(parts), rank)
                journal.add(name, largest, _fields_of(found))
            else:
                bar.update(samples)
            if not tables:
                tables = _tables(found, len(pixels))
            for field, value in found.items():
                tables[field][row] = value.to(pixels.device)
    if not tables:  # no usable image: one pass of an empty batch gives the number of values
        width = _values(module, pixels[:0]).shape[1]
        none = torch.empty(0, width, dtype=torch.float64, device=pixels.device)
        tables = _tables(_limits(none, 0), len(pixels))
    radii = torch.full((len(pixels),), radius, dtype=torch.float64, device=pixels.device)
    return SmoothedDistances(radius=radii, **tables)


_LARGE = 1e300
"""Stands for infinite values in a file."""


def _fields_of(limits: dict[str, Tensor]) -> dict[str, list[Any]]:
    """Return the fields (T,) of one image for a file: exact, because numbers are hexadecimal."""
    return {
        name: [float.hex(v) if isinstance(v, float) else v for v in value.tolist()]
        for name, value in limits.items()
    }


def _read(fields: dict[str, Any]) -> dict[str, Tensor]:
    """Return the limits (T,) of one image from the fields of a line; see :func:`_fields_of`."""
    found = {
        name: torch.tensor([float.fromhex(v) for v in fields[name]], dtype=torch.float64)
        for name in ("lower", "upper", "median")
    }
    for name in ("undefined", "status"):
        found[name] = torch.tensor([int(v) for v in fields[name]], dtype=torch.int64)
    if len({len(value) for value in found.values()}) != 1 or bool(
        (found["lower"] > found["upper"]).any()
    ):
        raise ValueError("its limits do not belong together")
    return found


def _values(module: Callable[[Tensor], Tensor], batch: Tensor) -> Tensor:
    """Return the values (N,T) of a module, float64, or raise ArgumentError."""
    values = module(batch)
    if (
        not isinstance(values, Tensor)
        or values.dim() != 2
        or len(values) != len(batch)
        or not values.is_floating_point()
    ):
        got = describe(values)
        if isinstance(values, Tensor):
            got = f"values of shape {tuple(values.shape)}, dtype {values.dtype}"
        raise ArgumentError(
            "module",
            f"{got}, of {len(batch)} images",
            "a floating-point tensor (N,T) of N images",
            "return one row per image",
        )
    return values.to(torch.float64)


def _tables(fields: dict[str, Tensor], rows: int) -> dict[str, Tensor]:
    """Return tables (rows,T) like `fields` (T,), of rows that are not finite."""
    fill = {"undefined": 0, "status": int(Status.NOT_FINITE)}
    return {k: v.new_full((rows, *v.shape), fill.get(k, torch.nan)) for k, v in fields.items()}


def _limits(values: Tensor, rank: int) -> dict[str, Tensor]:
    """Return the fields (T,) of one image from its values (N,T)."""
    undefined = torch.isnan(values)
    # a missing value may be any: the smallest for one limit, the largest for the other
    low = torch.where(undefined, -torch.inf, values).sort(dim=0).values
    high = torch.where(undefined, torch.inf, values).sort(dim=0).values
    nothing = values.new_full(values.shape[1:], torch.inf)
    lower, upper = (low[rank - 1], high[len(values) - rank]) if rank else (-nothing, nothing)
    middle = (len(values) - 1) // 2
    median = low[middle] if len(values) else nothing
    other = high[middle] if len(values) else nothing
    count = undefined.sum(dim=0)
    unlimited = (lower == -torch.inf) | ((upper == torch.inf) & (count > 0))
    unlimited |= torch.tensor(rank == 0, device=values.device)
    return {
        "lower": lower,
        "upper": upper,
        "median": torch.where(median == other, median, torch.nan),
        "undefined": count,
        "status": torch.where(unlimited, int(Status.UNDECIDED), int(Status.CONVERGED)),
    }
