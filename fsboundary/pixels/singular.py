"""The largest singular value of the features' Jacobian at an image, and its direction."""

from __future__ import annotations

import torch
from torch import Tensor

from fsboundary.core.protocols import ModelView
from fsboundary.pixels.jacobian import Linearised, norms, per_image


def top_singular(
    view: ModelView, images: Tensor, begin: Tensor, steps: int
) -> tuple[Tensor, Tensor]:
    """Return the top singular value (B,), float64, and its unit direction in pixels (B,C,H,W).

    Lanczos on J Jᵀ with every vector kept orthogonal: the products are those of power iteration,
    one with J and one with Jᵀ a step, and the answer is the best of the whole Krylov space instead
    of its last vector (Golub and Van Loan, Matrix Computations, 4th ed., section 10.1). The value
    is a lower bound up to rounding, and exact after d steps.

    Parameters
    ----------
    view : ModelView
    images : Tensor (B, C, H, W)
    begin : Tensor (d,)
        Any vector that is not orthogonal to the answer, the same for every row.
    steps : int
    """
    near = Linearised(view, images)
    start = begin.to(torch.float64).expand(len(images), -1)
    basis = [start / norms(start)[:, None]]
    pulled, products = [], []
    for step in range(min(steps, len(begin))):
        pulled.append(near.back(basis[-1].to(near.features)))
        product = near.along(pulled[-1]).to(torch.float64)
        products.append(product)
        if step + 1 == min(steps, len(begin)):
            break
        kept = torch.stack(basis, dim=1)
        rest = product
        for _ in range(2):  # once more, for what rounding left of the first time
            rest = rest - torch.einsum("bkd,bk->bd", kept, torch.einsum("bkd,bd->bk", kept, rest))
        size, scale = norms(rest), norms(product)
        # nothing new: the space is closed under J Jᵀ and holds the answer
        new = size > 1e-6 * scale  # below the rounding of products in float32
        basis.append(torch.where(new[:, None], rest / torch.where(new, size, 1)[:, None], 0))
    kept = torch.stack(basis, dim=1)
    small = torch.einsum("bkd,bjd->bkj", kept, torch.stack(products, dim=1))
    weights = torch.linalg.eigh(0.5 * (small + small.mT)).eigenvectors[..., -1]
    direction = torch.einsum("bk,bkx->bx", weights.to(images), torch.stack(pulled, 1).flatten(2))
    direction = direction.reshape(images.shape)
    size = norms(direction)
    direction = direction / per_image(torch.where(size > 0, size, 1), images)
    return norms(near.along(direction).to(torch.float64)), direction
