"""Classes and certified radii of the smoothed classifier: the majority under Gaussian noise."""

from __future__ import annotations

import os
from typing import Any, NamedTuple

import torch
from jaxtyping import Float
from torch import Tensor, nn

from fsboundary.core.checks import check_integer, check_number
from fsboundary.core.results import SmoothedClasses
from fsboundary.core.rows import TensorOrArray
from fsboundary.core.status import Status
from fsboundary.geometry.bounds.confidence import gaussian_shift, lower_probability
from fsboundary.modes import in_standard_modes
from fsboundary.pixels.certification.journal import check_resume, open_journal
from fsboundary.pixels.certification.noise import NoisyCopies
from fsboundary.pixels.checks import check_bounds, check_pixels
from fsboundary.pixels.model_calls import first_logits
from fsboundary.progress import tqdm
from fsboundary.space import FeatureSpace, space_of


class Counts(NamedTuple):
    """Class that most noisy copies of the selection have, and how many of the estimation do."""

    selected: int
    hits: int


@in_standard_modes
@torch.no_grad()
def smoothed(
    model: nn.Module | FeatureSpace,
    images: Float[TensorOrArray, "B C H W"],
    *,
    sigma: float,
    samples: int = 1000,
    alpha: float = 1e-3,
    selection_samples: int = 100,
    bounds: tuple[float, float] = (0, 1),
    seed: int = 0,
    batch_size: int = 256,
    resume: str | os.PathLike[str] | None = None,
    show_progress: bool = False,
) -> SmoothedClasses:
    """Return classes and certified radii of a smoothed classifier, **not of the model itself**.

    The smoothed classifier gives an image the class that the model gives most often to the image
    with Gaussian noise (Cohen, Rosenfeld and Kolter, "Certified adversarial robustness via
    randomized smoothing", ICML 2019). Only forward passes are needed, so this works for any
    network. What is certified is that majority: the model may have another class at the image, and
    at images within the radius. :func:`certify` is about the model itself.

    The class is that of most copies of a first sample; a second, independent sample bounds its
    probability p from below (Clopper and Pearson), and the radius is sigma times the quantile of
    the standard normal at p. Where p is not above 1/2, the smoothed classifier abstains. Class and
    radius of an image are wrong with probability at most `alpha`, those of any of B images with
    probability at most ``B * alpha``. Noise comes from a pseudo-random generator, in float32 for
    images of float32 or less; it is taken for the Gaussian.

    Parameters
    ----------
    model : nn.Module or FeatureSpace
        Model in eval mode. With ``preprocess=`` of a space, sigma and radii are in
        the user's own pixels.
    images : Tensor or array (B, C, H, W)
        Floating-point images within `bounds`. Their noisy copies are not clipped: noise leaves the
        bounds of pixels, and the model must take such images. One that the model gives NaN for
        counts as of no class.
    sigma : float
        Standard deviation of the noise of each pixel, in pixel units.
    samples : int
        Number of noisy copies per image that estimate the probability. No radius exceeds sigma
        times the quantile at ``alpha ** (1 / samples)``: 2.46 sigma by default.
    alpha : float
        Probability of error per image.
    selection_samples : int
        Number of noisy copies per image that select the class.
    bounds : (float, float)
        Smallest and largest pixel value of `images`. The radius does not depend on it.
    seed : int
        Each image has its own generator, seeded with `seed` and the image.
    batch_size : int
        Number of noisy copies per pass; only one image's copies are in memory.
    resume : path, optional
        A file for the counts of finished images. A run with the same model, sigma, seed and numbers
        of samples resumes from it; a last line that was not finished is removed.
    show_progress : bool

    Returns
    -------
    SmoothedClasses
        On the device of `images`. UNDECIDED where the smoothed classifier abstains.

    Raises
    ------
    ArgumentError
        Wrong types or shapes, pixels out of bounds, or `resume` is a file of another model or run.
    HeadError
        The model has no linear head.
    DataError
        The file `resume` is damaged, or cannot be read or written.

    Examples
    --------
    >>> import torch
    >>> from fsboundary import pixels
    >>> model = torch.nn.Sequential(torch.nn.Flatten(), torch.nn.Linear(4, 3)).eval()
    >>> found = pixels.smoothed(model, torch.rand(2, 1, 2, 2), sigma=0.01)
    >>> bool((found.smoothed_radius[found.ok] > 0).all())
    True
    """
    space = space_of(model)
    pixels = check_pixels(images, check_bounds(bounds))
    check_number("sigma", sigma, 0, fix="pass a noise in pixel units, such as 0.1")
    check_number("alpha", alpha, 0, 1, fix="pass 0.001")
    check_integer("samples", samples)
    check_integer("selection_samples", selection_samples)
    check_integer("batch_size", batch_size)
    check_integer("seed", seed, None)
    check_resume(resume)
    sigma, alpha = float(sigma), float(alpha)
    logits = first_logits(space, pixels, batch_size)
    finite = torch.isfinite(logits).all(dim=1)
    rows = finite.nonzero()[:, 0].tolist()
    device, num_classes = pixels.device, logits.shape[1]
    selected = torch.full((len(pixels),), -1, dtype=torch.int64, device=device)
    hits = torch.zeros_like(selected)
    options = {"sigma": sigma, "samples": samples, "selection": selection_samples, "seed": seed}
    options["classes"] = num_classes

    def read(fields: dict[str, Any]) -> Counts:
        counts = Counts(fields["selected"], fields["hits"])
        if not (0 <= counts.selected < num_classes and 0 <= counts.hits <= samples):
            raise ValueError(f"it states the counts {tuple(counts)}")
        return counts

    passes = tqdm(
        total=len(rows) * (samples + selection_samples), unit="copy", disable=not show_progress
    )
    with open_journal(resume, "classes", space.model, options, read) as journal, passes as bar:

        def count(copies: NoisyCopies, number: int) -> Tensor:
            counts = torch.zeros(num_classes, dtype=torch.int64)
            for batch in copies.take(number, batch_size):
                counts += _class_counts(space.logits(batch)).cpu()
                bar.update(len(batch))
            return counts

        for row in rows:
            copies = NoisyCopies(pixels[row], sigma, seed)
            logit = float(logits[row].amax())
            found = journal.find(copies.digest, logit)
            if found is None:
                winner = int(count(copies, selection_samples).argmax())
                found = Counts(winner, int(count(copies, samples)[winner]))
                journal.add(copies.digest, logit, found._asdict())
            else:
                bar.update(samples + selection_samples)
            selected[row], hits[row] = found
    probability = torch.where(finite, lower_probability(hits, samples, alpha), torch.nan)
    radius = sigma * gaussian_shift(probability)
    certified = radius > 0
    status = torch.where(certified, int(Status.CONVERGED), int(Status.UNDECIDED))
    return SmoothedClasses(
        smoothed_class=torch.where(certified, selected, -1),
        smoothed_radius=torch.where(certified, radius, torch.nan),
        selected=selected,
        hits=hits,
        probability=probability,
        model_class=torch.where(finite, logits.nan_to_num().argmax(dim=1), -1),
        status=torch.where(finite, status, int(Status.NOT_FINITE)),
    )


def _class_counts(logits: Tensor) -> Tensor:
    """Return how many rows of `logits` (N,K) have each class, (K,); rows with NaN have none."""
    classes = logits.argmax(dim=1)[~torch.isnan(logits).any(dim=1)]
    return torch.bincount(classes, minlength=logits.shape[1])
