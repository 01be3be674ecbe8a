"""Zero-shot classifiers: images and class names embedded in one space, compared by angle."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, final

from torch import Tensor, nn
from torch.nn import functional

from fsboundary.core.checks import check_float_tensor, check_number, describe
from fsboundary.core.errors import ArgumentError


@final
class ZeroShotClassifier(nn.Module):
    """Classifier of images by the angle between their embedding and those of the classes.

    Its logits are ``scale * cos(image, text)``, linear in the normalised image embedding. Decision
    regions are cones, so flip points, balls and hulls of the embeddings as the encoder gives them
    are exact; for angles see :meth:`fsboundary.FlipPoints.angles`.

    Parameters
    ----------
    image_encoder : nn.Module or callable
        From images (B, ...) to embeddings (B,d), normalised or not; also a method of a module, such
        as ``model.encode_image``.
    text_embeddings : Tensor (K, d)
        Embedding of each class, such as the mean over prompts; they are normalised here.
    scale : float
        Factor of the logits, for example ``model.logit_scale.exp()``; without effect on decisions.

    Raises
    ------
    ArgumentError
        Embeddings of another shape, or 0.

    Examples
    --------
    >>> import torch
    >>> from fsboundary import FeatureSpace
    >>> encoder = torch.nn.Sequential(torch.nn.Flatten(), torch.nn.Linear(12, 3)).eval()
    >>> space = FeatureSpace.zero_shot(encoder, torch.eye(3), scale=100.0)
    >>> space.extract(torch.rand(5, 3, 2, 2)).features.shape
    torch.Size([5, 3])
    """

    def __init__(
        self,
        image_encoder: nn.Module | Callable[[Tensor], Tensor],
        text_embeddings: Tensor,
        scale: float = 1.0,
    ) -> None:
        super().__init__()
        if not callable(image_encoder):
            got, wanted = describe(image_encoder), "a module, or a method of one"
            raise ArgumentError("image_encoder", got, wanted, "pass model.encode_image")
        fix = "pass one embedding per class"
        text = check_float_tensor("text_embeddings", text_embeddings, ("K", "d"), fix=fix)
        if not bool((text.norm(dim=1) > 0).all()) or len(text) < 2:
            got = f"shape {tuple(text.shape)}, or an embedding that is 0 or not finite"
            raise ArgumentError("text_embeddings", got, "at least two finite directions", fix)
        check_number("scale", scale, 0, fix="pass logit_scale.exp()")
        owner = getattr(image_encoder, "__self__", None)
        # registered, so that its parameters, device and mode are those of this module
        self.encoder = image_encoder if isinstance(image_encoder, nn.Module) else owner
        self._encode = image_encoder
        self.register_buffer("text", functional.normalize(text.detach(), dim=1))
        self.scale = float(scale)
        self.training = False  # that of the encoder stays as it is

    def forward(self, images: Any, *additional: Any, **keywords: Any) -> Tensor:
        """Return the logits (B,K)."""
        z = self._encode(images, *additional, **keywords)
        text: Any = self.text
        logits: Tensor = self.scale * functional.normalize(z, dim=1) @ text.to(z.dtype).mT
        return logits
