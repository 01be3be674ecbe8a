"""Files of images: read rightly, or refused by name; nothing is run, and no size is believed."""

from __future__ import annotations

import io
import os
import random
import stat
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import PIL
import pytest
import torch
from PIL import EpsImagePlugin, Image

from fsboundary.core.errors import DataError
from fsboundary.report.inputs import archives, loading
from fsboundary.report.inputs.given import Given
from fsboundary.report.inputs.loading import load_images, source_files
from support.damaged_files import SUFFIXES, TURNS, damaged, encode, kinds, png, tiff

RNG = np.random.default_rng(0)
COLOURS = RNG.integers(0, 256, (8, 6, 3), dtype=np.uint8)
DEEP = RNG.integers(0, 65536, (8, 6, 4), dtype=np.uint16)


def _rows(pixels: np.ndarray[Any, Any]) -> bytes:
    return b"".join(b"\0" + row.tobytes() for row in pixels)


def _load(folder: Path, name: str, content: bytes) -> torch.Tensor:
    (folder / name).write_bytes(content)
    return load_images(folder).images


def _tiff16(samples: int, photometric: int = 2) -> bytes:
    tags = {256: (3, (6,)), 257: (3, (8,)), 258: (3, (16,) * samples), 259: (3, (1,))}
    tags |= {262: (3, (photometric,)), 277: (3, (samples,)), 278: (3, (8,))}
    return tiff(tags, DEEP[..., :samples].astype("<u2").tobytes())


def _tiff8(pixels: bytes, photometric: int, **more: Any) -> bytes:
    tags = {
        256: (3, (6,)),
        257: (3, (8,)),
        258: (3, (8,)),
        259: (3, (1,)),
        262: (3, (photometric,)),
    }
    return tiff(tags | {277: (3, (1,)), 278: (3, (8,))} | more.get("tags", {}), pixels)


TOO_DEEP = {
    "grey.png": png((6, 8, 16, 0), _rows(DEEP[..., 0].astype(">u2"))),
    "colour.png": png((6, 8, 16, 2), _rows(DEEP[..., :3].astype(">u2"))),
    "grey with alpha.png": png((6, 8, 16, 4), _rows(DEEP[..., :2].astype(">u2"))),
    "colour with alpha.png": png((6, 8, 16, 6), _rows(DEEP.astype(">u2"))),
    "colour.ppm": b"P6 6 8 65535\n" + DEEP[..., :3].astype(">u2").tobytes(),
    "ten bits.ppm": b"P6 6 8 1023\n" + (DEEP[..., :3] % 1024).astype(">u2").tobytes(),
    "nine bits.ppm": b"P6 6 8 256\n" + (DEEP[..., :3] % 257).astype(">u2").tobytes(),
    "text.ppm": b"P3 6 8 65535\n" + b" ".join(b"%d" % v for v in DEEP[..., :3].ravel()),
    "grey.pgm": b"P5 6 8 65535\n" + DEEP[..., 0].astype(">u2").tobytes(),
    "ten bits.pgm": b"P5 6 8 1023\n" + (DEEP[..., 0] % 1024).astype(">u2").tobytes(),
    "floats.ppm": b"Pf\n6 8\n-1.0\n" + np.ones((8, 6), "<f4").tobytes(),
    "grey.tif": _tiff16(1, 1),
    "colour.tif": _tiff16(3),
    "colour with alpha.tif": _tiff16(4),
    "cmyk.tif": _tiff16(4, 5),
    "floats.tif": encode(Image.fromarray(np.ones((8, 6), np.float32)), "TIFF"),
    "integers.tif": encode(Image.fromarray(np.ones((8, 6), np.int32)), "TIFF"),
    "signed.tif": _tiff8(bytes(range(100, 148)), 1, tags={339: (3, (2,))}),
    "colour map.tif": _tiff8(
        bytes(range(48)), 3, tags={320: (3, tuple(map(int, RNG.integers(0, 65536, 768))))}
    ),
}


@pytest.mark.parametrize("name", TOO_DEEP)
def test_what_eight_bits_do_not_hold_is_refused_by_name(name: str, tmp_path: Path) -> None:
    with pytest.raises(DataError, match=f"{name}: has more than 8 bits per channel"):
        _load(tmp_path, name, TOO_DEEP[name])


def _palette_tiff(step: int) -> tuple[bytes, np.ndarray[Any, Any]]:
    palette = RNG.integers(0, 256, 768)
    content = _tiff8(bytes(range(48)), 3, tags={320: (3, tuple(int(c) * step for c in palette))})
    return content, palette.reshape(3, 256).T[:48].reshape(8, 6, 3) / 255


RIGHT: dict[str, Any] = {
    "rgb.png": (encode(Image.fromarray(COLOURS), "PNG"), COLOURS / 255),
    "rgb.bmp": (encode(Image.fromarray(COLOURS), "BMP"), COLOURS / 255),
    "rgb.ppm": (encode(Image.fromarray(COLOURS), "PPM"), COLOURS / 255),
    "rgb.tif": (encode(Image.fromarray(COLOURS), "TIFF"), COLOURS / 255),
    "rgb.webp": (encode(Image.fromarray(COLOURS), "WEBP", lossless=True), COLOURS / 255),
    "grey.png": (encode(Image.fromarray(COLOURS[..., 0]), "PNG"), COLOURS[..., 0] / 255),
    "grey.pgm": (encode(Image.fromarray(COLOURS[..., 0]), "PPM"), COLOURS[..., 0] / 255),
    "one bit.png": (
        png((8, 8, 1, 0), _rows(COLOURS[:, :1, 0])),
        np.unpackbits(COLOURS[:, :1, 0], 1),
    ),
    "two bits.png": (png((4, 8, 2, 0), b"\0\x1b" * 8), np.tile(np.arange(4) / 3, (8, 1))),
    "four bits.png": (png((2, 8, 4, 0), b"\0\x4b" * 8), np.tile(np.array([4, 11]) / 15, (8, 1))),
    "fifteen.pgm": (b"P5 3 1 15\n\x00\x07\x0f", np.array([[0, 7, 15]]) / 15),
    "palette.png": (
        png((2, 1, 8, 3), b"\0\1\0", (b"PLTE", bytes([9, 8, 7, 6, 5, 4]))),
        np.array([[[6, 5, 4], [9, 8, 7]]]) / 255,
    ),
    "palette 257.tif": _palette_tiff(257),
    "palette 256.tif": _palette_tiff(256),
    "white is zero.tif": (
        _tiff8(bytes(range(48)), 0),
        1 - np.arange(48).reshape(8, 6) / 255,
    ),
    "opaque.png": (
        encode(Image.fromarray(np.dstack([COLOURS, np.full((8, 6), 255, np.uint8)])), "PNG"),
        COLOURS / 255,
    ),
    "opaque grey.png": (
        png((6, 1, 8, 4), b"\0" + bytes([5, 255] * 6)),
        np.full((1, 6), 5 / 255),
    ),
    "colour that does not occur.png": (
        png((2, 1, 8, 0), b"\0\1\2", (b"tRNS", b"\0\3")),
        np.array([[1, 2]]) / 255,
    ),
}


@pytest.mark.parametrize("name", RIGHT)
def test_right_values(name: str, tmp_path: Path) -> None:
    content, expected = RIGHT[name]
    found = _load(tmp_path, name, content)[0].numpy()
    found = found[0] if len(found) == 1 else found.transpose(1, 2, 0)
    assert found.shape == expected.shape
    np.testing.assert_allclose(found, expected, atol=1e-6)


TRANSPARENT = {
    "rgba.png": png((1, 1, 8, 6), b"\0\1\2\3\xfe"),
    "grey.png": png((1, 1, 8, 4), b"\0\1\0"),
    "palette.png": png((2, 1, 8, 3), b"\0\1\0", (b"PLTE", bytes(6)), (b"tRNS", b"\xff\x00")),
    "colour.png": png((2, 1, 8, 2), b"\0\1\2\3\4\5\6", (b"tRNS", b"\0\4\0\5\0\6")),
    "level.png": png((2, 1, 8, 0), b"\0\1\2", (b"tRNS", b"\0\2")),
    "a.gif": encode(Image.fromarray(np.eye(4, dtype=np.uint8)).convert("P"), "GIF", transparency=1),
    "a.webp": encode(Image.new("RGBA", (4, 4), (9, 9, 9, 100)), "WEBP", lossless=True),
    "a.tif": encode(Image.new("RGBA", (4, 4), (9, 9, 9, 0)), "TIFF"),
}


@pytest.mark.parametrize("name", TRANSPARENT)
def test_transparent_pixels_are_refused_by_name(name: str, tmp_path: Path) -> None:
    with pytest.raises(DataError, match=f"{name}: has transparent pixels"):
        _load(tmp_path, name, TRANSPARENT[name])


@pytest.mark.parametrize(
    ("mode", "kind"), [("CMYK", "JPEG"), ("CMYK", "TIFF"), ("LAB", "TIFF"), ("YCbCr", "TIFF")]
)
def test_other_colour_spaces_are_refused_by_name(mode: str, kind: str, tmp_path: Path) -> None:
    name, wanted = f"a{SUFFIXES[kind]}", f"has the colour space {mode}"
    if mode == "YCbCr" and int(PIL.__version__.split(".")[0]) < 13:
        wanted = "cannot be read as an image"  # these releases cannot read what they write
    with pytest.raises(DataError, match=f"{name}: {wanted}"):
        _load(tmp_path, name, encode(Image.new(mode, (4, 4)), kind))


@pytest.mark.parametrize("kind", ["GIF", "PNG", "WEBP", "TIFF"])
def test_several_frames_are_refused_by_name(kind: str, tmp_path: Path) -> None:
    frames = [Image.fromarray(COLOURS[::step].repeat(step, 0)) for step in (1, 2)]
    content = encode(frames[0], kind, save_all=True, append_images=frames[1:])
    with pytest.raises(DataError, match=rf"a\{SUFFIXES[kind]}: has more than one frame"):
        _load(tmp_path, f"a{SUFFIXES[kind]}", content)


def test_previews_of_a_camera_are_not_frames(tmp_path: Path) -> None:
    main, preview = Image.new("RGB", (8, 8), (255, 0, 0)), Image.new("RGB", (4, 4))
    content = encode(main, "MPO", save_all=True, append_images=[preview])
    assert _load(tmp_path, "a.jpg", content).shape == (1, 3, 8, 8)


@pytest.mark.parametrize("orientation", range(1, 9))
@pytest.mark.parametrize("kind", ["PNG", "JPEG", "WEBP", "TIFF"])
def test_orientation_is_applied(kind: str, orientation: int, tmp_path: Path) -> None:
    pixels = np.zeros((16, 32), np.uint8)
    pixels[:8, :8], pixels[:8, 24:] = 255, 120  # differs from all its turns
    exif = Image.Exif()
    exif[274] = orientation
    options = {"lossless": True} if kind == "WEBP" else {}
    content = encode(Image.fromarray(pixels).convert("RGB"), kind, exif=exif, **options)
    found = _load(tmp_path, f"a{SUFFIXES[kind]}", content)[0]
    expected = TURNS[orientation](pixels) / 255
    assert found.shape == (3, *expected.shape)
    np.testing.assert_allclose(found[1].numpy(), expected, atol=0.05 if kind == "JPEG" else 1e-6)


@pytest.mark.parametrize("named", SUFFIXES)
@pytest.mark.parametrize("kind", SUFFIXES)
def test_only_the_decoder_of_the_suffix_is_used(named: str, kind: str, tmp_path: Path) -> None:
    content = encode(Image.fromarray(COLOURS), kind)
    if named == kind:
        assert _load(tmp_path, f"a{SUFFIXES[named]}", content).shape == (1, 3, 8, 6)
        return
    with pytest.raises(DataError, match=f"is named as {named} but contains {kind}. Give it"):
        _load(tmp_path, f"a{SUFFIXES[named]}", content)


EPS = b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 8 8\n%%EndComments\nshowpage\n%%EOF\n"


@pytest.mark.parametrize("suffix", sorted(loading.SUFFIXES))
def test_no_program_is_started(
    suffix: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    programs, folder = tmp_path / "programs", tmp_path / "images"
    programs.mkdir()
    folder.mkdir()
    (programs / "gs").write_text(f"#!/bin/sh\ntouch {tmp_path}/started\n")
    (programs / "gs").chmod(stat.S_IRWXU)
    monkeypatch.setenv("PATH", f"{programs}:{os.environ['PATH']}")
    monkeypatch.setattr(EpsImagePlugin, "gs_binary", None)
    for content in (EPS, b"%PDF-1.4\n", b"<svg xmlns='http://www.w3.org/2000/svg'/>", b""):
        with pytest.raises(DataError, match=rf"x\{suffix}: cannot be read as an image of type"):
            _load(folder, f"x{suffix}", content)
    assert not (tmp_path / "started").exists()


@pytest.mark.parametrize("size", [(100_000, 100_000), (13_000, 13_000), (4097, 4096)])
def test_declared_pixels_are_compared_with_a_limit(size: tuple[int, int], tmp_path: Path) -> None:
    with pytest.raises(DataError, match=r"a\.png: (is [\d,]+ x [\d,]+ pixels; at most|.*Bomb)"):
        _load(tmp_path, "a.png", png((*size, 1, 0), bytes(10)))


def test_memory_of_the_machine_is_a_limit(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    np.savez(tmp_path / "a.npz", images=COLOURS[None].transpose(0, 3, 1, 2))
    folder = tmp_path / "images"
    folder.mkdir()
    for k in range(3):
        Image.fromarray(COLOURS).save(folder / f"{k}.png")
    monkeypatch.setattr(archives.os, "sysconf", lambda name: 20)  # 400 bytes of memory
    for path in (tmp_path / "a.npz", folder):
        with pytest.raises(DataError, match=r"GB as floating point; this machine has"):
            load_images(path)


def _outside(folder: Path) -> str:
    Image.fromarray(COLOURS).save(folder.parent / "outside.png")
    (folder / "a.png").symlink_to(folder.parent / "outside.png")
    return r"a\.png: is a link to .*outside\.png, outside of"


def _class_outside(folder: Path) -> str:
    (folder.parent / "other").mkdir()
    Image.fromarray(COLOURS).save(folder.parent / "other" / "a.png")
    (folder / "class").symlink_to(folder.parent / "other")
    return r"a\.png: is a link to .*other/a\.png, outside of"


def _chain(folder: Path) -> str:
    (folder / "b.png").symlink_to("a.png")
    _outside(folder)
    return r"\.png: is a link to .*outside\.png, outside of"


def _device(folder: Path) -> str:
    (folder / "a.png").symlink_to("/dev/zero")
    return r"a\.png: is a link to /dev/zero"


def _loop(folder: Path) -> str:
    (folder / "a.png").symlink_to("a.png")
    return r"a\.png: (is no file|cannot be)|cannot be listed"


def _dangling(folder: Path) -> str:
    (folder / "a.png").symlink_to("b.png")
    return r"a\.png: is no file"


def _pipe(folder: Path) -> str:
    os.mkfifo(folder / "a.png")
    return r"a\.png: is no file"


@pytest.mark.parametrize(
    "make", [_outside, _class_outside, _chain, _device, _loop, _dangling, _pipe]
)
def test_links_and_special_files_are_refused(make: Callable[[Path], str], tmp_path: Path) -> None:
    folder = tmp_path / "images"
    folder.mkdir()
    message = make(folder)
    with pytest.raises(DataError, match=message):
        load_images(folder)


def test_links_within_the_folder_are_followed(tmp_path: Path) -> None:
    folder, alias = tmp_path / "images", tmp_path / "alias"
    folder.mkdir()
    alias.symlink_to(folder)
    Image.fromarray(COLOURS).save(folder / "a.png")
    (folder / "b.png").symlink_to("a.png")
    (folder / "._a.png").write_bytes(b"what some systems write beside a file")
    assert load_images(alias).file_names == ("a.png", "b.png")
    assert sorted(p.name for p in source_files(alias)) == ["._a.png", "a.png", "b.png"]


def test_names_that_are_not_text_are_escaped(tmp_path: Path) -> None:
    folder = tmp_path / os.fsdecode(b"cl\xff\xe2\x80\xaeass")
    folder.mkdir()
    with (folder / os.fsdecode(b"\xfe.png")).open("wb") as stream:
        Image.fromarray(COLOURS).save(stream, "PNG")
    found = load_images(tmp_path)
    assert found.class_names == (r"cl\xff\u202eass",)
    assert found.file_names == (r"cl\xff\u202eass/\xfe.png",)


@pytest.mark.parametrize("name", kinds())
def test_damaged_files_are_refused_or_read_rightly(
    name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    seeds, file, read = kinds()[name]
    for kind, content in seeds:
        read(tmp_path / (file + SUFFIXES.get(kind, "")), kind, content)
    results = [
        read(tmp_path / (file + SUFFIXES.get(kind, "")), kind, content)
        for kind, content in damaged(seeds, 150, seed=0)
    ]
    assert 0 < sum(results) < 150  # some are refused, and some are not


def _archive(path: Path, header: str, body: bytes = b"", key: str = "images.npy") -> Path:
    text = header.encode() + b" " * (-(len(header) + 11) % 64) + b"\n"
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr(key, b"\x93NUMPY\1\0" + len(text).to_bytes(2, "little") + text + body)
    return path


@pytest.mark.parametrize(
    "shape",
    [
        "(1099511627776,)",
        "(1000000, 3, 4096, 4096)",
        "(4294967296, 4294967296, 4, 4)",
        "(-4, 1, 6, 6)",
        "(-4, -1, 6, 6)",
        "(4, 1, 6, 6)",
        "(2, 1, 6, 6)",
    ],
)
def test_declared_shapes_are_compared_with_the_file(
    shape: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    header = f"{{'descr': '|u1', 'fortran_order': False, 'shape': {shape}, }}"
    path = _archive(tmp_path / "a.npz", header, bytes(100))
    monkeypatch.setattr(np.lib.format, "read_array", pytest.fail)  # which would allocate
    with pytest.raises(
        DataError, match=r"a\.npz: images\.npy declares the shape .*, which the file"
    ):
        load_images(path)


def test_a_size_that_no_compression_reaches_is_refused(tmp_path: Path) -> None:
    header = "{'descr': '|u1', 'fortran_order': False, 'shape': (1099511627648,), }"
    content = _archive(tmp_path / "a.npz", header, bytes(9)).read_bytes()
    size, false = (128 + 9).to_bytes(4, "little"), (2**32 - 2).to_bytes(4, "little")
    assert content.count(size) == 2  # in both headers of the member
    content = content.replace(size, false).replace(b"1099511627648", b"00004294967166")
    (tmp_path / "a.npz").write_bytes(content)
    with pytest.raises(DataError, match=r"a\.npz: "):
        load_images(tmp_path / "a.npz")


class _Runs:
    """An object whose unpickling creates a file."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def __reduce__(self) -> tuple[Any, ...]:
        return os.mkdir, (str(self.path),)


IMAGES = np.zeros((2, 1, 4, 4), np.uint8)


@pytest.mark.parametrize(
    ("names", "message"),
    [
        (["image"], r"contains image; wanted an array 'images'\. Rename 'image' to 'images'"),
        (["x", "y"], r"contains x, y; wanted an array 'images'\. Save it with"),
        ([], "contains nothing; wanted an array 'images'"),
        (["images", "lables"], r"contains images, lables; wanted .*Rename 'lables' to 'labels'"),
        (["images", "label"], "Rename 'label' to 'labels'"),
        (["images", "classnames"], "Rename 'classnames' to 'class_names'"),
        (["images", "train_image"], "Rename 'train_image' to 'train_images'"),
        (["images", "a\u202elabels"], r"contains images, a\\u202elabels"),
    ],
)
def test_a_misspelt_key_is_named(names: list[str], message: str, tmp_path: Path) -> None:
    np.savez(tmp_path / "a.npz", **dict.fromkeys(names, IMAGES))
    with pytest.raises(DataError, match=message):
        load_images(tmp_path / "a.npz")


def test_other_arrays_of_an_archive_are_left_out(tmp_path: Path) -> None:
    more = dict.fromkeys(["test_images", "test_labels", "ids", "label_names", "x"], IMAGES)
    np.savez(tmp_path / "a.npz", images=IMAGES, labels=np.array([0, 1]), label=IMAGES, **more)
    found = load_images(tmp_path / "a.npz")
    assert found.labels is not None
    assert found.train_images is None


@pytest.mark.parametrize("files", [["train/cat/a.png"], ["cat/a.png", "dog/small/2x/b.png"]])
def test_images_in_deeper_folders_are_named(files: list[str], tmp_path: Path) -> None:
    for name in files:
        (tmp_path / name).parent.mkdir(parents=True)
        Image.fromarray(COLOURS).save(tmp_path / name)
    with pytest.raises(DataError, match=f"such as {files[-1]}; wanted .* perhaps .*, or move"):
        load_images(tmp_path)


def test_hidden_and_other_folders_in_classes_are_left_out(tmp_path: Path) -> None:
    for name in ("cat/a.png", "cat/.small/b.png", "dog/c.png"):
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray(COLOURS).save(tmp_path / name)
    (tmp_path / "dog" / "notes").mkdir()
    (tmp_path / "dog" / "notes" / "a.txt").write_text("no image")
    (tmp_path / "dog" / "up").symlink_to(tmp_path)
    assert load_images(tmp_path).labels.tolist() == [0, 1]  # type: ignore[union-attr]  # by folders


def test_a_colour_image_among_grey_ones_is_named(tmp_path: Path) -> None:
    for k in range(4):
        Image.fromarray(COLOURS[:6, :, 0]).save(tmp_path / f"{k}.png")
    assert load_images(tmp_path).remark == ""
    Image.fromarray(COLOURS[:6]).save(tmp_path / "scan\u202e.png")
    found = load_images(tmp_path)
    assert found.images.shape == (5, 3, 6, 6)
    assert found.remark.startswith("1 of 5 images are in colour (scan\\u202e.png), so the grey")
    with pytest.raises(DataError, match=r"does not accept .*\(3, 6, 6\).*1 of 5 images are in col"):
        Given(model="support.report:tiny_model", data=tmp_path).read()


@pytest.mark.parametrize("key", archives.KEYS)
def test_pickled_objects_are_refused(key: str, tmp_path: Path) -> None:
    arrays: dict[str, Any] = {"images": np.zeros((2, 1, 4, 4), np.uint8)}
    arrays |= {"train_images": arrays["images"], key: np.array([_Runs(tmp_path / "ran")] * 2)}
    np.savez(tmp_path / "a.npz", **arrays)
    with pytest.raises(DataError, match=r"a\.npz: cannot be read without pickle"):
        load_images(tmp_path / "a.npz")
    assert not (tmp_path / "ran").exists()


@pytest.mark.parametrize(
    "header",
    [
        "{'descr': __import__('os').mkdir('ran'), 'fortran_order': False, 'shape': (1,), }",
        "{'descr': [('a', '<f4')], 'fortran_order': False, 'shape': (4, 1, 6, 6), }",
        "{'descr': ('|u1', (6,)), 'fortran_order': False, 'shape': (4, 1, 6), }",
        "{'descr': '|u1', 'fortran_order': False, 'shape': (True, True, 12, 12), }",
        "{'descr': '|u1', 'fortran_order': False",
        "(" * 500,
        "",
    ],
)
def test_headers_that_are_none(
    header: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    with pytest.raises(DataError, match=r"a\.npz: "):
        load_images(_archive(tmp_path / "a.npz", header, bytes(144)))
    assert not (tmp_path / "ran").exists()


def test_archives_that_say_two_things(tmp_path: Path) -> None:
    stream = io.BytesIO()
    np.save(stream, np.zeros((1, 1, 4, 4), np.uint8))
    with zipfile.ZipFile(tmp_path / "a.npz", "w") as archive:
        archive.writestr("images.npy", stream.getvalue())
        archive.writestr("images", stream.getvalue())
    with pytest.raises(DataError, match=r"a\.npz: contains images twice"):
        load_images(tmp_path / "a.npz")
    with zipfile.ZipFile(tmp_path / "b.npz", "w", zipfile.ZIP_BZIP2) as archive:
        archive.writestr("images.npy", stream.getvalue())
    with pytest.raises(DataError, match=r"b\.npz: images\.npy is compressed by method 12"):
        load_images(tmp_path / "b.npz")


def test_checksums_are_compared(tmp_path: Path) -> None:
    images = RNG.integers(0, 256, (2, 1, 8, 8), dtype=np.uint8)
    np.savez(tmp_path / "a.npz", images=images)
    content = (tmp_path / "a.npz").read_bytes()
    place = content.index(images.tobytes())
    rng = random.Random(0)
    for _ in range(20):
        changed = bytearray(content)
        changed[place + rng.randrange(images.size)] ^= 1 << rng.randrange(8)
        (tmp_path / "a.npz").write_bytes(bytes(changed))
        with pytest.raises(DataError, match="CRC"):
            load_images(tmp_path / "a.npz")


def test_rounding_at_the_bounds_is_clipped(tmp_path: Path) -> None:
    images = np.array([-3e-8, 0.5, np.nan, 1 + 1.2e-7], np.float64).reshape(1, 1, 2, 2)
    np.savez(tmp_path / "a.npz", images=images)
    found = load_images(tmp_path / "a.npz").images.ravel()
    assert found[[0, 1, 3]].tolist() == [0, 0.5, 1]
    assert found[2].isnan()
    np.savez(tmp_path / "a.npz", images=images + 2e-6)
    with pytest.raises(DataError, match=r"range from 1\.97e-06 to 1\.00000212; wanted"):
        load_images(tmp_path / "a.npz")


def test_labels_that_wrap_are_refused(tmp_path: Path) -> None:
    images = np.zeros((2, 1, 4, 4), np.uint8)
    for label in (2**63, 2**64 - 1):
        np.savez(tmp_path / "a.npz", images=images, labels=np.array([0, label], np.uint64))
        with pytest.raises(DataError, match="whole numbers from 0"):
            load_images(tmp_path / "a.npz")
