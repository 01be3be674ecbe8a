"""Film strips and GIFs of frames."""

from __future__ import annotations

from os import PathLike
from typing import IO

import torch
from PIL import Image
from torch import Tensor

from fsboundary.core.errors import ArgumentError
from fsboundary.pixels.checks import check_bounds, check_count

_SHADES = 32
"""Colours in a frame of a GIF: fewer compress better, and so few still look smooth."""
_WHITE = 1.0
_GAP = 1


def film_strip(
    frames: Tensor, *, bounds: tuple[float, float] = (0, 1), scale: int = 1
) -> Image.Image:
    """Return frames side by side, one row of them for each film.

    Parameters
    ----------
    frames : Tensor (N, C, H, W) or (R, N, C, H, W)
        For example ``morph.images[0]``, or ``torch.stack([morph.images[0], morph.blend[0]])``.
        Three channels are red, green and blue; of any other number the mean is shown, in grey. NaN
        is white.
    bounds : (float, float)
        Pixel values shown as black and as white.
    scale : int
        Each pixel is shown as this many by this many.

    Returns
    -------
    PIL.Image.Image

    Raises
    ------
    ArgumentError
        Wrong types or shapes.
    """
    films = _shades(frames, bounds)
    padded = torch.nn.functional.pad(films, (0, _GAP, 0, _GAP), value=_WHITE)
    rows = [torch.cat(list(film), dim=2) for film in padded]
    return _picture(torch.cat(rows, dim=1)[:, :-_GAP, :-_GAP], scale)


def write_gif(
    frames: Tensor,
    file: str | PathLike[str] | IO[bytes],
    *,
    bounds: tuple[float, float] = (0, 1),
    scale: int = 2,
    milliseconds: int = 120,
) -> None:
    """Write frames as a GIF that runs there and back for ever; several films below each other.

    Parameters
    ----------
    frames : Tensor (N, C, H, W) or (R, N, C, H, W)
        As :func:`film_strip`.
    file : path or binary file
    bounds : (float, float)
    scale : int
    milliseconds : int
        How long a frame is shown.

    Raises
    ------
    ArgumentError
        Wrong types or shapes.
    """
    films = _shades(frames, bounds)
    check_count("milliseconds", milliseconds)
    padded = torch.nn.functional.pad(films, (0, 0, 0, _GAP), value=_WHITE)
    pictures = [
        _picture(torch.cat(list(padded[:, n]), dim=1)[:, :-_GAP], scale)
        for n in range(padded.shape[1])
    ]
    # without dither, which would make up noise that no two frames share
    small = [p.quantize(_SHADES, dither=Image.Dither.NONE) for p in pictures]
    there_and_back = small + small[-2:0:-1]
    there_and_back[0].save(
        file,
        format="GIF",
        save_all=True,
        append_images=there_and_back[1:],
        duration=milliseconds,
        loop=0,
        optimize=True,
    )


def _shades(frames: object, bounds: tuple[float, float]) -> Tensor:
    """Return films (R,N,1 or 3,H,W) in [0, 1], or raise ArgumentError."""
    low, high = check_bounds(bounds)
    wanted = "a float tensor (N, C, H, W) or (R, N, C, H, W) with frames"
    fix = "pass morph.images[row]"
    if not isinstance(frames, Tensor) or not frames.is_floating_point():
        raise ArgumentError("frames", f"a {type(frames).__name__}", wanted, fix)
    if frames.ndim not in (4, 5) or frames.numel() == 0:
        raise ArgumentError("frames", f"shape {tuple(frames.shape)}", wanted, fix)
    films = frames[None] if frames.ndim == 4 else frames
    shades = ((films.detach().cpu().float() - low) / (high - low)).nan_to_num(nan=_WHITE)
    shades = shades.clamp(0, 1)
    return shades if shades.shape[2] in (1, 3) else shades.mean(dim=2, keepdim=True)


def _picture(shades: Tensor, scale: int) -> Image.Image:
    """Return an image (1 or 3, H, W) in [0, 1] as a picture, enlarged."""
    check_count("scale", scale)
    values = (shades * 255).round().to(torch.uint8).movedim(0, -1)
    array = values.repeat_interleave(scale, 0).repeat_interleave(scale, 1).numpy()
    return Image.fromarray(array[..., 0] if array.shape[-1] == 1 else array)
