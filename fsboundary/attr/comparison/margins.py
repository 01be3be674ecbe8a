"""Margins of changed images, as a share of what the images themselves had."""

from __future__ import annotations

from typing import Any, final

import torch
from torch import Tensor
from tqdm import tqdm

from fsboundary.core.status import Status
from fsboundary.space import FeatureSpace


@final
class Margins:
    """The margin of each image's own class over the best other one, in logit units.

    Parameters
    ----------
    space : FeatureSpace
    images : Tensor (B, C, H, W)
    batch_size : int
        Images at once.
    bar : tqdm
        Told of every change of the images that was measured.

    Attributes
    ----------
    status : Tensor (B,)
        CONVERGED; NOT_FINITE; or DEGENERATE where the margin is not above 0.
    usable : Tensor (B,), bool
        Where it is CONVERGED; other rows are NaN.
    """

    def __init__(
        self, space: FeatureSpace, images: Tensor, batch_size: int, bar: tqdm[Any]
    ) -> None:
        batch = space.extract(images, batch_size=batch_size)
        self._space, self.images, self._size, self._bar = space, images, batch_size, bar
        self._source = batch.predicted.clamp_min(0)
        self._start = _over_others(batch.logits.double(), self._source)
        flat = (batch.status == Status.CONVERGED) & ~(self._start > 0)
        self.status = torch.where(flat, int(Status.DEGENERATE), batch.status)
        self.usable = self.status == Status.CONVERGED

    def shares(self, changed: Tensor) -> Tensor:
        """Return the margins (B,) of `changed` images, divided by the images' own."""
        parts = []
        with torch.no_grad():
            for part in torch.arange(len(changed)).split(self._size):
                logits = self._space.logits(changed[part]).to(self._start)
                parts.append(_over_others(logits, self._source[part]))
        self._bar.update()
        return torch.where(self.usable, torch.cat(parts) / self._start, torch.nan)


def _over_others(logits: Tensor, source: Tensor) -> Tensor:
    """Return logit `source` minus the largest other one, (B,)."""
    own = torch.nn.functional.one_hot(source, logits.shape[1]).bool()
    others = logits.masked_fill(own, -torch.inf).amax(dim=1)
    return logits.gather(1, source[:, None])[:, 0] - others
