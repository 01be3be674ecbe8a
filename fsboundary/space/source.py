"""Where the features of images come from."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import final

import torch
from torch import Tensor

from fsboundary.banks import BankInfo
from fsboundary.core.errors import DataError
from fsboundary.space.drawn import Drawn


@final
@dataclass(frozen=True, slots=True)
class Source:
    """A feature space, as far as a bank needs it.

    Attributes
    ----------
    extract : callable
        Images (m, ...) to features (m,d), in one batch: the same images give the same bits only
        in the same company.
    about : callable
        The space's BankInfo, once some features were extracted.
    """

    extract: Callable[[Tensor], Tensor]
    about: Callable[[], BankInfo]

    def features(self, batch: Drawn) -> Tensor:
        """Return the features (m,d) of a batch, float32 or float64.

        Raises
        ------
        DataError
            Features are NaN or infinite; the message says which images'.
        """
        features = self.extract(batch.images)
        bad = (~torch.isfinite(features).all(dim=1)).nonzero()[:, 0] + batch.start
        if len(bad):
            shown = ", ".join(map(str, bad[:20].tolist())) + (", .." if len(bad) > 20 else "")
            raise DataError(
                f"loader: NaN or infinite features of {len(bad)} images, at rows {shown} (counted "
                "from 0). Leave these images out or mend them, and call again: on disk, whole "
                "chunks before them are kept"
            )
        return features if features.dtype == torch.float64 else features.to(torch.float32)
