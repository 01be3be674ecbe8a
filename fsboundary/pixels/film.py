"""Film strips and GIFs of morph frames."""

from __future__ import annotations

import io
from os import PathLike
from pathlib import Path
from typing import Protocol, runtime_checkable

import torch
from PIL import Image
from torch import Tensor

from fsboundary.core.checks import check_float_tensor, check_instance, check_integer
from fsboundary.core.files import check_outputs, write_file
from fsboundary.modes import in_standard_modes
from fsboundary.pixels.checks import check_bounds

_COLOURS = 32
"""Number of colours in a frame of a GIF: fewer compress better, and 32 still look smooth."""

_WHITE = 1.0

_GAP = 1
"""Width of the lines between frames, pixels."""


@in_standard_modes
def film_strip(
    frames: Tensor, *, bounds: tuple[float, float] = (0, 1), scale: int = 1
) -> Image.Image:
    """Return a picture of frames side by side, one row per film.

    Parameters
    ----------
    frames : Tensor (N, C, H, W) or (R, N, C, H, W)
        For example ``morph.images[0]``, or ``torch.stack([morph.images[0], morph.blend[0]])``.
        Three channels are red, green and blue; the mean of any other number of channels is shown
        in grey. NaN is white.
    bounds : (float, float)
        Pixel values shown as black and as white.
    scale : int
        Factor by which the picture is enlarged.

    Returns
    -------
    PIL.Image.Image

    Raises
    ------
    ArgumentError
        Wrong types or shapes.

    Examples
    --------
    >>> import torch
    >>> import fsboundary as fsb
    >>> strip = fsb.pixels.film_strip(torch.rand(4, 1, 8, 8))
    >>> strip.size
    (35, 8)
    """
    films = _to_films(frames, bounds)
    padded = torch.nn.functional.pad(films, (0, _GAP, 0, _GAP), value=_WHITE)
    rows = [torch.cat(list(film), dim=2) for film in padded]
    return _to_picture(torch.cat(rows, dim=1)[:, :-_GAP, :-_GAP], scale)


@runtime_checkable
class BinaryFile(Protocol):
    """What a GIF can be written to: an open binary file, or a buffer."""

    def write(self, data: bytes, /) -> object:
        """Write `data`."""
        ...


def write_gif(
    frames: Tensor,
    file: str | PathLike[str] | BinaryFile,
    *,
    bounds: tuple[float, float] = (0, 1),
    scale: int = 2,
    milliseconds: int = 120,
) -> None:
    """Write frames as a GIF that loops forwards and backwards; several films below each other.

    Parameters
    ----------
    frames : Tensor (N, C, H, W) or (R, N, C, H, W)
        Frames as for :func:`film_strip`.
    file : path or binary file
        A file at this path is replaced once the GIF is complete.
    bounds : (float, float)
    scale : int
    milliseconds : int
        Duration of a frame.

    Raises
    ------
    ArgumentError
        Wrong types or shapes, or a path that cannot be written.
    DataError
        The file could not be written; what was there is unchanged.

    Examples
    --------
    >>> import tempfile, torch
    >>> from pathlib import Path
    >>> import fsboundary as fsb
    >>> path = Path(tempfile.mkdtemp()) / "film.gif"
    >>> fsb.pixels.write_gif(torch.rand(4, 1, 8, 8), path)
    >>> path.read_bytes()[:6]
    b'GIF89a'
    """
    films = _to_films(frames, bounds)
    check_integer("milliseconds", milliseconds)
    kinds = (str, PathLike, BinaryFile)
    fix = 'pass "film.gif", or io.BytesIO()'
    check_instance("file", file, kinds, "a path or a binary file", fix)
    path = Path(file) if isinstance(file, str | PathLike) else None
    check_outputs({"file": path}, force=True)
    padded = torch.nn.functional.pad(films, (0, 0, 0, _GAP), value=_WHITE)
    pictures = [
        _to_picture(torch.cat(list(padded[:, n]), dim=1)[:, :-_GAP], scale)
        for n in range(padded.shape[1])
    ]
    # no dithering, which would add noise that differs between frames
    forwards = [p.quantize(_COLOURS, dither=Image.Dither.NONE) for p in pictures]
    loop = forwards + forwards[-2:0:-1]
    stream = io.BytesIO()
    loop[0].save(
        stream,
        format="GIF",
        save_all=True,
        append_images=loop[1:],
        duration=milliseconds,
        loop=0,
        optimize=True,
    )
    if isinstance(file, str | PathLike):
        write_file(file, stream.getvalue())
    else:
        file.write(stream.getvalue())


def _to_films(frames: object, bounds: tuple[float, float]) -> Tensor:
    """Return `frames` as films (R,N,1 or 3,H,W) in [0, 1], or raise ArgumentError."""
    low, high = check_bounds(bounds)
    fix = "pass morph.images[row]"
    shapes = ("N", "C", "H", "W"), ("R", "N", "C", "H", "W")
    films = check_float_tensor("frames", frames, *shapes, fix=fix, nonempty=True)
    films = films[None] if films.ndim == 4 else films
    shades = ((films.cpu().float() - low) / (high - low)).nan_to_num(nan=_WHITE)
    shades = shades.clamp(0, 1)
    return shades if shades.shape[2] in (1, 3) else shades.mean(dim=2, keepdim=True)


def _to_picture(shades: Tensor, scale: int) -> Image.Image:
    """Return an image (1 or 3, H, W) in [0, 1] as an enlarged picture."""
    check_integer("scale", scale)
    values = (shades * 255).round().to(torch.uint8).movedim(0, -1)
    array = values.repeat_interleave(scale, 0).repeat_interleave(scale, 1).numpy()
    return Image.fromarray(array[..., 0] if array.shape[-1] == 1 else array)
