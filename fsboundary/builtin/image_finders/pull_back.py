"""From flip points in feature space to first images in pixels."""

from __future__ import annotations

import torch
from torch import Tensor

from fsboundary.builtin.boundary_finders.dual_newton import DualNewton
from fsboundary.builtin.image_finders.box_projection import onto_plane
from fsboundary.builtin.image_finders.search_state import ImageSearch, tied
from fsboundary.core.heads import LinearHead
from fsboundary.core.tolerance import FLIP_RTOL


def pulled_back(search: ImageSearch, choices: int) -> Tensor:
    """Return images (B,n) whose features are, to first order, at a flip point.

    For each of the `choices` classes whose boundaries are nearest in feature space (or the chosen
    target alone): one gradient of the features along the way to the flip point, and the nearest
    image within the box that goes all the way on the linearisation. The nearest of these is
    returned; exact where the body is linear. The clean image where no flip point is known.
    """
    rows, clean = search.all_rows, search.clean
    best, distance = clean.clone(), torch.full_like(search.distance, torch.inf)
    with torch.enable_grad():
        shown = search.shown(clean).requires_grad_()
        features = tied(search.view.features(shown), shown)
        ways = _ways_to_flip(search, features.detach().double(), choices)
        columns = ways.shape[1]
        search.evaluations[rows] += columns
        for column in range(columns):
            aim = (features * ways[:, column].to(features)).sum()
            (raw,) = torch.autograd.grad(aim, shown, retain_graph=column + 1 < columns)
            gradient = raw.flatten(1).to(clean)
            advance = ways[:, column].square().sum(dim=1).to(clean)
            level = torch.linalg.vecdot(gradient, clean) + advance
            image, _ = onto_plane(clean, -gradient, -level, search.box, search.norm)
            size = search.length(image - clean)
            better = (size > 0) & (size < distance)
            distance = torch.where(better, size, distance)
            best = torch.where(better[:, None], image, best)
    return best


def _ways_to_flip(search: ImageSearch, features: Tensor, choices: int) -> Tensor:
    """Return flip points minus features (B,T,d); 0 where there is none or the head disagrees."""
    head = search.view.head.to(features.device)
    usable = torch.isfinite(features).all(dim=1) & head.domain.contains(features)
    rows = usable.nonzero()[:, 0]
    rows = rows[head.predict(features[rows]) == search.source[rows]]
    if search.target is None:
        targets = _nearest(head, features[rows], search.source[rows], choices)
    else:
        targets = search.target[rows, None]
    way = features.new_zeros(len(features), targets.shape[1], features.shape[1])
    flips = DualNewton().find(
        head, features[rows], targets=targets, tolerance=FLIP_RTOL, max_steps=100
    )
    way[rows] = torch.nan_to_num(flips.points - features[rows, None])
    return way


def _nearest(head: LinearHead, z: Tensor, source: Tensor, choices: int) -> Tensor:
    """Return the classes (B,T) with the nearest hyperplanes, nearest first."""
    logits = head.logits(z)
    gaps = logits.gather(1, source[:, None]) - logits
    norms = torch.linalg.vector_norm(head.weight[source][:, None] - head.weight, dim=2)
    ratio = torch.nan_to_num(gaps / norms, nan=torch.inf).scatter(1, source[:, None], torch.inf)
    return ratio.topk(min(choices, head.num_classes - 1), dim=1, largest=False).indices
