"""Classes on the segment between two images, for piecewise linear networks."""

from __future__ import annotations

import torch
from jaxtyping import Float
from torch import Tensor, nn

from fsboundary.builtin.body_bounds.body import trace_body
from fsboundary.builtin.body_bounds.rules import rule_of
from fsboundary.core.checks import check_integer
from fsboundary.core.errors import ArgumentError
from fsboundary.core.results import SegmentClasses
from fsboundary.core.rows import stack_ragged
from fsboundary.core.status import Status
from fsboundary.modes import in_standard_modes
from fsboundary.pixels.certification.pieces import require_piecewise_linear
from fsboundary.pixels.certification.segment_path import SegmentPath, path_of
from fsboundary.pixels.checks import check_pixels
from fsboundary.pixels.model_calls import first_logits
from fsboundary.progress import tqdm
from fsboundary.space import FeatureSpace, space_of

MAX_PIECES = 100_000
"""Default limit of linear pieces per segment."""


@in_standard_modes
@torch.no_grad()
def segment_classes(
    model: nn.Module | FeatureSpace,
    start: Float[Tensor, "B C H W"],
    end: Float[Tensor, "B C H W"],
    *,
    max_pieces: int | None = None,
    batch_size: int = 64,
    show_progress: bool = False,
) -> SegmentClasses:
    """Return the classes met on segments of images, and where they change, without sampling.

    A body of piecewise linear operations is linear on pieces of a segment, whose ends are where an
    activation passes a knot or another number of a window becomes the largest. They are computed
    operation by operation, and on each piece every logit is a straight line. So no class is missed,
    however narrow, unless its stretch or its lead is within rounding. Everything is float64: the
    classes are those of the model in exact arithmetic, which a float32 model may decide otherwise
    next to a crossing.

    Each answer is checked with passes of its own: features are linear between the ends of every
    piece, and at every crossing the two classes tie and no other is above.

    Parameters
    ----------
    model : nn.Module or FeatureSpace
        Model in eval mode. With ``preprocess=`` of a space, images are in the user's own pixels.
    start, end : Tensor (B, C, H, W)
        Floating-point images.
    max_pieces : int, optional
        Limit of linear pieces per segment, default 100,000. Networks have about as many as
        activations that change on the segment.
    batch_size : int
        Number of images per pass of the check.
    show_progress : bool

    Returns
    -------
    SegmentClasses
        On the device of `start`; computed on the CPU.

    Raises
    ------
    ArgumentError
        Wrong types or shapes.
    HeadError
        The model has no linear head, or an operation of its body has no rule or is not piecewise
        linear; the message names the operation.

    Examples
    --------
    >>> import torch
    >>> from fsboundary import pixels
    >>> body = torch.nn.Sequential(torch.nn.Flatten(), torch.nn.Linear(4, 8), torch.nn.ReLU())
    >>> model = torch.nn.Sequential(body, torch.nn.Linear(8, 3)).eval()
    >>> start, end = torch.rand(2, 1, 1, 2, 2)
    >>> found = pixels.segment_classes(model, start, end)
    >>> bool(found.ok.all())
    True
    """
    space = space_of(model)
    a = check_pixels(start, None, "start")
    b = check_pixels(end, None, "end", like=a).to(a.device)
    limit = check_integer("max_pieces", MAX_PIECES if max_pieces is None else max_pieces)
    check_integer("batch_size", batch_size)
    if space.surrogate:
        raise ArgumentError(
            "model",
            "a FeatureSpace with a fitted head, whose class may differ from the model's",
            "a space with the model's own head",
            "leave extractor= out, so that the head is found in the model",
        )
    logits = torch.cat([first_logits(space, a, batch_size), first_logits(space, b, batch_size)])
    finite = torch.isfinite(logits).all(dim=1).reshape(2, -1).all(dim=0)
    rows = finite.nonzero()[:, 0].tolist()
    found = [SegmentPath.failed(Status.NOT_FINITE) for _ in a]
    if rows:
        body = trace_body(space, a[rows[:1]], rule_of)
        require_piecewise_linear(body)
        head = space.head.to(torch.device("cpu"))
        for row in tqdm(rows, unit="segment", disable=not show_progress):
            ends = a[row].to("cpu", torch.float64), b[row].to("cpu", torch.float64)
            found[row] = path_of(body, head, *ends, limit, batch_size)
    # one more row gives the tables their shape if there is none
    more = [*found, SegmentPath.failed(Status.NOT_FINITE)]
    return SegmentClasses(
        classes=stack_ragged([p.classes for p in more], -1)[:-1],
        crossings=stack_ragged([p.crossings for p in more], torch.nan)[:-1],
        residual=torch.tensor([p.residual for p in found], dtype=torch.float64),
        pieces=torch.tensor([p.pieces for p in found], dtype=torch.int64),
        status=torch.tensor([int(p.status) for p in found], dtype=torch.int64),
    ).to(a.device)
