"""Damaged files of images, arrays and weights, and independent readers of those that still do."""

from __future__ import annotations

import io
import json
import random
import struct
import zlib
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from PIL import Image
from safetensors.torch import save
from torch import nn

from fsboundary.core.errors import DataError
from fsboundary.report.inputs.loading import load_images
from fsboundary.report.inputs.weights import load_weights

SUFFIXES = {
    "PNG": ".png",
    "JPEG": ".jpg",
    "BMP": ".bmp",
    "GIF": ".gif",
    "TIFF": ".tif",
    "WEBP": ".webp",
    "PPM": ".ppm",
}

TURNS: dict[int, Callable[[NDArray[np.uint8]], NDArray[np.uint8]]] = {
    1: lambda a: a,
    2: lambda a: a[:, ::-1],
    3: lambda a: a[::-1, ::-1],
    4: lambda a: a[::-1],
    5: lambda a: a.swapaxes(0, 1),
    6: lambda a: np.rot90(a, -1),
    7: lambda a: np.rot90(a, 2).swapaxes(0, 1),
    8: lambda a: np.rot90(a, 1),
}
"""What each value of the EXIF tag "orientation" asks for, by the definition of the standard."""


def png(header: tuple[int, int, int, int], rows: bytes, *further: tuple[bytes, bytes]) -> bytes:
    """Return a PNG file: width, height, bit depth and colour type, then rows and further chunks."""

    def chunk(kind: bytes, content: bytes) -> bytes:
        check = struct.pack(">I", zlib.crc32(kind + content))
        return struct.pack(">I", len(content)) + kind + content + check

    start = chunk(b"IHDR", struct.pack(">IIBBBBB", *header, 0, 0, 0))
    middle = b"".join(chunk(*part) for part in further)
    end = chunk(b"IDAT", zlib.compress(rows)) + chunk(b"IEND", b"")
    return b"\x89PNG\r\n\x1a\n" + start + middle + end


def tiff(tags: dict[int, tuple[int, tuple[int, ...]]], pixels: bytes) -> bytes:
    """Return a TIFF file of one strip: tags with type (3: 16 bits, 4: 32 bits) and values."""
    tags = tags | {273: (4, (8,)), 279: (4, (len(pixels),))}
    pixels += b"\0" * (len(pixels) % 2)
    directory, after = 8 + len(pixels), b""
    free = directory + 2 + 12 * len(tags) + 4
    entries = b""
    for tag, (kind, values) in sorted(tags.items()):
        content = struct.pack(f"<{len(values)}{'HI'[kind - 3]}", *values)
        if len(content) > 4:
            content, after = struct.pack("<I", free + len(after)), after + content
        entries += struct.pack("<HHI", tag, kind, len(values)) + content.ljust(4, b"\0")
    start = b"II*\0" + struct.pack("<I", directory)
    return start + pixels + struct.pack("<H", len(tags)) + entries + bytes(4) + after


def encode(picture: Image.Image, kind: str, **options: object) -> bytes:
    """Return a picture as the content of a file."""
    stream = io.BytesIO()
    picture.save(stream, kind, **options)
    return stream.getvalue()


def _image_seeds() -> list[tuple[str, bytes]]:
    pixels = np.random.default_rng(0).integers(0, 256, (10, 12, 3), dtype=np.uint8)
    picture = Image.fromarray(pixels)
    seeds = []
    for kind in SUFFIXES:
        for mode in ("RGB", "P", "L", "1", "RGBA", "CMYK"):
            try:
                seeds.append((kind, encode(picture.convert(mode), kind)))
            except (OSError, ValueError):
                continue  # this format has no such mode
    for compression in ("tiff_lzw", "tiff_deflate", "packbits", "jpeg", "group4"):
        mode = "1" if compression == "group4" else "RGB"
        content = encode(picture.convert(mode), "TIFF", compression=compression)
        seeds.append(("TIFF", content))
    exif = Image.Exif()
    exif[274] = 6
    seeds += [(kind, encode(picture, kind, exif=exif)) for kind in ("PNG", "JPEG", "WEBP", "TIFF")]
    seeds.append(
        ("GIF", encode(picture, "GIF", save_all=True, append_images=[Image.new("L", (12, 10))]))
    )
    seeds.append(("PNG", png((12, 10, 16, 2), (b"\0" + bytes(range(72))) * 10)))
    return seeds


def _array_seeds() -> list[bytes]:
    pixels = np.random.default_rng(0).integers(0, 256, (3, 1, 4, 4), dtype=np.uint8)
    arrays = {"images": pixels, "labels": np.arange(3), "class_names": np.array(["a", "b", "c"])}
    seeds = []
    for writer in (np.savez, np.savez_compressed):
        stream = io.BytesIO()
        writer(stream, **arrays)
        seeds.append(stream.getvalue())
    return seeds


def small_model() -> nn.Module:
    """Return a model with weights of several types."""
    torch.manual_seed(0)
    return nn.Sequential(nn.Linear(4, 3), nn.BatchNorm1d(3), nn.Linear(3, 2).half())


def mutate(content: bytes, rng: random.Random) -> bytes:
    """Return `content` with a few bytes changed, cut off, added or repeated."""
    changed = bytearray(content)
    for _ in range(rng.choice([1, 1, 2, 4])):
        draw = rng.random()
        place = rng.randrange(min(len(changed), rng.choice([30, 200, 10**6])))
        if draw < 0.7:
            changed[place] = rng.choice([0, 1, 127, 128, 255, rng.randrange(256)])
        elif draw < 0.85:
            changed = changed[: max(1, rng.randrange(len(changed)))]
        else:
            changed[place:place] = rng.randbytes(4)
    return bytes(changed)


def _read_image(path: Path, kind: str, content: bytes) -> bool:
    """Load a folder of one image; return False if it is refused, and assert that it is right."""
    path.write_bytes(content)
    try:
        found = load_images(path.parent)
    except DataError as error:
        if path.name not in str(error):
            raise
        return False
    finally:
        path.unlink()
    with Image.open(io.BytesIO(content), formats=[kind]) as picture:
        colours = np.asarray(picture.convert("RGB"))
        turn = 1 if kind == "TIFF" else picture.getexif().get(274, 1)  # Pillow turns TIFF itself
    colours = TURNS.get(turn, TURNS[1])(colours)
    expected = torch.from_numpy(colours.astype(np.float32) / 255).permute(2, 0, 1)[None]
    assert torch.equal(found.images.expand(-1, 3, -1, -1), expected)
    return True


def _read_archive(path: Path, kind: str, content: bytes) -> bool:
    """Load an archive; return False if it is refused, and assert that it is what was saved."""
    path.write_bytes(content)
    try:
        found = load_images(path)
    except DataError as error:
        if path.name not in str(error):
            raise
        return False
    finally:
        path.unlink()
    pixels = np.random.default_rng(0).integers(0, 256, (3, 1, 4, 4), dtype=np.uint8)
    assert torch.equal(found.images, torch.from_numpy(pixels).float() / 255)
    assert found.labels is not None
    assert found.labels.tolist() == [0, 1, 2]
    assert found.class_names == ("a", "b", "c")
    return True


_NUMPY = {"F32": "<f4", "F16": "<f2", "I64": "<i8", "F64": "<f8"}


def _read_weights(path: Path, kind: str, content: bytes) -> bool:
    """Load weights; return False if they are refused, and assert that the model has the file's."""
    path.write_bytes(content)
    model = small_model()
    try:
        load_weights(model, path)
    except DataError as error:
        if path.name not in str(error):
            raise
        return False
    finally:
        path.unlink()
    (size,) = struct.unpack_from("<Q", content)
    header, body = json.loads(content[8 : 8 + size]), content[8 + size :]
    header.pop("__metadata__", None)
    state = model.state_dict()
    assert set(header) == set(state)
    for key, entry in header.items():
        first, last = entry["data_offsets"]
        if entry["dtype"] not in _NUMPY:
            continue  # another floating-point type of the same size: none of NumPy's
        given = np.frombuffer(body[first:last], _NUMPY[entry["dtype"]]).reshape(entry["shape"])
        with np.errstate(over="ignore"):
            expected = given.astype(state[key].numpy().dtype)
        assert np.array_equal(state[key].numpy(), expected, equal_nan=given.dtype.kind == "f"), key
    return True


def kinds() -> dict[str, tuple[list[tuple[str, bytes]], str, Callable[[Path, str, bytes], bool]]]:
    """Return, by kind of file: undamaged contents, the name of a file and the test of one."""
    return {
        "images": (_image_seeds(), "x", _read_image),
        "npz": ([("", seed) for seed in _array_seeds()], "x.npz", _read_archive),
        "safetensors": ([("", save(small_model().state_dict()))], "x.safetensors", _read_weights),
    }


def damaged(seeds: list[tuple[str, bytes]], count: int, seed: int) -> Iterator[tuple[str, bytes]]:
    """Yield `count` damaged contents with their formats."""
    rng = random.Random(seed)
    for _ in range(count):
        kind, content = rng.choice(seeds)
        yield kind, mutate(content, rng)
