"""Film strips and GIFs."""

from __future__ import annotations

import io
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from fsboundary import ArgumentError
from fsboundary.demo import load_demo
from fsboundary.pixels import film_strip, write_gif


def test_a_strip_shows_every_frame() -> None:
    frames = torch.linspace(0, 1, 3).reshape(3, 1, 1, 1).expand(3, 1, 4, 5)
    shown = np.asarray(film_strip(torch.stack([frames, frames.flip(0)]), scale=2))
    assert shown.shape == (2 * (4 + 1 + 4), 2 * (5 + 1 + 5 + 1 + 5))
    assert shown[0, ::12].tolist() == [0, 128, 255]
    assert shown[-1, ::12].tolist() == [255, 128, 0]
    assert (shown[8:10] == 255).all()


def test_colours_bounds_and_nan() -> None:
    frame = torch.tensor([-1.0, 0.0, 3.0]).reshape(1, 3, 1, 1)
    assert np.asarray(film_strip(frame, bounds=(-1, 1))).tolist() == [[[0, 128, 255]]]
    two = torch.tensor([0.0, 1.0]).reshape(1, 2, 1, 1)
    assert np.asarray(film_strip(two)).tolist() == [[128]]
    assert np.asarray(film_strip(torch.full((1, 1, 1, 1), torch.nan))).tolist() == [[255]]


def test_a_gif_runs_forwards_and_backwards(tmp_path: Path) -> None:
    frames = torch.linspace(0, 1, 4).reshape(4, 1, 1, 1).expand(4, 3, 6, 6)
    write_gif(frames, tmp_path / "a.gif", scale=3, milliseconds=50)
    with Image.open(tmp_path / "a.gif") as gif:
        assert gif.n_frames == 6  # type: ignore[attr-defined]  # GIFs have it
        assert gif.size == (18, 18)
        assert gif.info["loop"] == 0
        shades = []
        for n in range(6):
            gif.seek(n)
            shades.append(gif.convert("RGB").getpixel((0, 0))[0])  # type: ignore[index]  # a colour
    assert shades == [0, 85, 170, 255, 170, 85]


def test_gifs_of_real_images_are_small() -> None:
    images = load_demo().test_images
    fractions = torch.linspace(0, 1, 16).reshape(-1, 1, 1, 1)
    films = torch.stack([torch.lerp(images[k], images[-1 - k], fractions) for k in (0, 1)])
    stream = io.BytesIO()
    write_gif(films, stream)
    print(f"two films of 16 frames: {len(stream.getvalue())} bytes")
    assert len(stream.getvalue()) < 80_000  # so twelve of them stay below 1 MB


@pytest.mark.parametrize("frames", [torch.zeros(2, 3, 4), torch.zeros(0, 1, 2, 2), "film"])
def test_bad_frames(frames: object) -> None:
    with pytest.raises(ArgumentError, match="frames"):
        film_strip(frames)  # type: ignore[arg-type]  # wrong on purpose
    with pytest.raises(ArgumentError, match="scale"):
        film_strip(torch.zeros(1, 1, 2, 2), scale=0)


@pytest.mark.parametrize("file", [None, 3, b"film.gif"])
def test_a_file_that_is_none_is_refused(file: object) -> None:
    with pytest.raises(ArgumentError, match="file"):
        write_gif(torch.zeros(1, 1, 2, 2), file)  # type: ignore[arg-type]  # wrong on purpose
