"""What a user gives: sizes, names of classes, labels, preprocessing, training images."""

from __future__ import annotations

import json
import math
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image
from torch import Tensor, nn

from fsboundary.core.errors import ArgumentError, DataError, FsboundaryError
from fsboundary.report.inputs import given as given_module
from fsboundary.report.inputs.given import Given, Inputs
from fsboundary.report.inputs.loading import ImageSet, load_images
from fsboundary.report.inputs.names import read_class_names, read_labels
from fsboundary.report.inputs.sizes import Size, parse_size
from support.report import tiny_model

RNG = np.random.default_rng(0)


class Doubled(nn.Module):
    def forward(self, images: Tensor) -> Tensor:
        return images * 2


def double() -> nn.Module:
    return Doubled()


def double_plainly() -> Callable[[Tensor], Tensor]:
    return lambda images: images * 2


def number() -> int:
    return 3


def thousand() -> nn.Module:
    return tiny_model(classes=1000)


def save(path: Path, *, size: tuple[int, int] = (6, 6)) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(RNG.integers(0, 256, size, dtype=np.uint8)).save(path)


def read(data: Path, **changes: Any) -> Inputs:
    given: dict[str, Any] = {"model": "support.report:tiny_model", "data": data}
    return Given(**given | changes).read()


# Sizes


@pytest.mark.parametrize(
    ("text", "expected"), [(None, None), ("224", (224, 224)), ("256:224", (256, 224))]
)
def test_sizes(text: str | None, expected: tuple[int, int] | None) -> None:
    found = parse_size(text)
    assert (found and (found.resize, found.crop)) == expected


@pytest.mark.parametrize("text", ["", "0", "224:256", "a", "-3", "1:2:3", "5000", "\u0663", "2.5"])
def test_sizes_that_are_none(text: str) -> None:
    with pytest.raises(ArgumentError, match="such as 224"):
        parse_size(text)


@pytest.mark.parametrize("shape", [(30, 20), (20, 30), (25, 25), (33, 17), (8, 40), (12, 12)])
@pytest.mark.parametrize("colour", [False, True])
def test_pictures_are_resized_and_cropped_as_documented(
    shape: tuple[int, int], colour: bool
) -> None:
    pixels = RNG.integers(0, 256, (*shape, 3) if colour else shape, dtype=np.uint8)
    height, width = shape
    # written out from the documentation of torchvision's Resize and CenterCrop
    if height <= width:
        tall, wide = 12, math.floor(12 * width / height)
    else:
        tall, wide = math.floor(12 * height / width), 12
    resized = np.array(Image.fromarray(pixels).resize((wide, tall), Image.Resampling.BILINEAR))
    top, left = round((tall - 10) / 2), round((wide - 10) / 2)
    expected = resized[top : top + 10, left : left + 10]
    assert np.array_equal(Size(resize=12, crop=10).of_picture(pixels), expected)


@pytest.mark.parametrize("shape", [(30, 20), (20, 31), (9, 11), (12, 12)])
def test_arrays_are_resized_like_pictures(shape: tuple[int, int]) -> None:
    pixels = RNG.integers(0, 256, (3, *shape), dtype=np.uint8)
    size = Size(resize=12, crop=10)
    found = size.of_images(torch.from_numpy(pixels)[:, None].float() / 255)
    for image, picture in zip(found, pixels, strict=True):
        expected = torch.from_numpy(size.of_picture(picture)) / 255
        # Pillow rounds to whole grey values after each of two passes
        assert float((image[0] - expected).abs().max()) <= 1.5 / 255


def test_a_folder_of_any_sizes_is_read_with_a_size(tmp_path: Path) -> None:
    for k, shape in enumerate([(6, 6), (9, 20), (40, 7)]):
        save(tmp_path / f"{k}.png", size=shape)
    with pytest.raises(DataError, match="Let --size SIDE resize"):
        load_images(tmp_path)
    assert load_images(tmp_path, parse_size("6")).images.shape == (3, 1, 6, 6)
    assert len(read(tmp_path, size="8:6").images.images) == 3


def test_training_images_of_an_archive_are_resized_too(tmp_path: Path) -> None:
    np.savez(tmp_path / "a.npz", images=np.zeros((2, 9, 8)), train_images=np.ones((3, 1, 7, 12)))
    found = load_images(tmp_path / "a.npz", parse_size("6"))
    assert found.images.shape == (2, 1, 6, 6)
    assert found.train_images is not None
    assert found.train_images.shape == (3, 1, 6, 6)
    # the weights of a mean sum to one up to rounding in float32
    assert torch.allclose(found.train_images, torch.ones(3, 1, 6, 6), atol=1e-6)


# Names of classes


@pytest.mark.parametrize(
    ("file", "content"),
    [
        ("n.txt", "n01\tant\nn02\tbee\n"),
        ("n.txt", "\ufeffn01\tant\r\nn02\tbee\r\n"),
        ("n.json", '[["n01", "ant"], ["n02", "bee"]]'),
        ("n.json", '{"1": ["n02", "bee"], "0": ["n01", "ant"]}'),
    ],
)
def test_names_with_further_names(file: str, content: str, tmp_path: Path) -> None:
    (tmp_path / file).write_text(content, "utf-8")
    found = read_class_names(tmp_path / file)
    assert found.names == ("ant", "bee")
    assert found.numbers == {"n01": 0, "ant": 0, "n02": 1, "bee": 1}


@pytest.mark.parametrize(
    "content", ['["ant", "bee"]', '{"bee": 1, "ant": 0}', '{"0": "ant", "1": "bee"}']
)
def test_plain_names(content: str, tmp_path: Path) -> None:
    (tmp_path / "n.json").write_text(content)
    assert read_class_names(tmp_path / "n.json").names == ("ant", "bee")


@pytest.mark.parametrize(
    ("file", "content", "message"),
    [
        ("n.txt", "ant\n\nbee", "class 1 has an empty name"),
        ("n.txt", "ant\nbee\nant", "'ant' names the classes 0 and 2"),
        ("n.txt", "", "it contains no name"),
        ("n.json", "[1, 2]", "a name is not a text"),
        ("n.json", '{"ant": 0, "bee": 2}', "not numbered from 0"),
        ("n.json", "[", "JSONDecodeError"),
        ("n.json", "3", "TypeError"),
    ],
)
def test_names_that_are_none(file: str, content: str, message: str, tmp_path: Path) -> None:
    (tmp_path / file).write_text(content)
    with pytest.raises(DataError, match=message):
        read_class_names(tmp_path / file)
    with pytest.raises(DataError, match="is no file"):
        read_class_names(tmp_path / "gone.txt")


def test_thirty_of_a_thousand_classes(tmp_path: Path) -> None:
    chosen = sorted(RNG.choice(1000, 30, replace=False).tolist(), reverse=True)
    for k in chosen:
        save(tmp_path / "d" / f"name {k}" / "a.png")
    (tmp_path / "n.txt").write_text("".join(f"name {k}\n" for k in range(1000)))
    found = read(tmp_path / "d", class_names=tmp_path / "n.txt", model=f"{__name__}:thousand")
    assert found.class_names[999] == "name 999"
    files, labels = found.images.file_names, found.images.labels
    assert files is not None
    assert labels is not None
    # the folder's order is that of texts, the model's that of the list
    for file, label in zip(files, labels.tolist(), strict=True):
        assert file == f"name {label}/a.png"
    with pytest.raises(DataError, match=r"30 class names .* --class-names"):
        read(tmp_path / "d", model=f"{__name__}:thousand")


def test_an_unknown_folder_is_refused_with_the_closest_name(tmp_path: Path) -> None:
    save(tmp_path / "d" / "aunt" / "a.png")
    (tmp_path / "n.txt").write_text("ant\nbee\ncat\ndog\neel")
    with pytest.raises(DataError, match=r"'aunt' is none of the 5 names .*'ant', the closest"):
        read(tmp_path / "d", class_names=tmp_path / "n.txt")


def test_two_folders_of_one_class_are_refused(tmp_path: Path) -> None:
    for name in ("ant", "n01"):
        save(tmp_path / "d" / name / "a.png")
    (tmp_path / "n.txt").write_text("n01\tant\nbee\ncat\ndog\neel")
    with pytest.raises(DataError, match="ant and n01 are names of one class"):
        read(tmp_path / "d", class_names=tmp_path / "n.txt")


def test_numbered_folders_keep_their_numbers(tmp_path: Path) -> None:
    for name in ("1", "3"):
        save(tmp_path / "d" / name / "a.png")
    (tmp_path / "n.txt").write_text("ant\nbee\ncat\ndog\neel")
    found = read(tmp_path / "d", class_names=tmp_path / "n.txt")
    assert found.images.labels is not None
    assert found.images.labels.tolist() == [1, 3]
    assert found.class_names[3] == "dog"


def test_labels_of_an_archive_are_mapped_by_its_names(tmp_path: Path) -> None:
    images = np.zeros((3, 6, 6))
    np.savez(tmp_path / "a.npz", images=images, labels=[0, 1, -1], class_names=["eel", "bee"])
    (tmp_path / "n.txt").write_text("ant\nbee\ncat\ndog\neel")
    found = read(tmp_path / "a.npz", class_names=tmp_path / "n.txt").images
    assert found.labels is not None
    assert found.labels.tolist() == [4, 1, -1]


def test_the_number_of_names_is_that_of_the_classes(tmp_path: Path) -> None:
    save(tmp_path / "d" / "a.png")
    (tmp_path / "n.txt").write_text("ant\nbee")
    with pytest.raises(DataError, match=r"n\.txt: 2 class names .* model of 5 classes"):
        read(tmp_path / "d", class_names=tmp_path / "n.txt")


# Labels


def images_of(*files: str) -> ImageSet:
    return ImageSet(images=torch.zeros(len(files), 1, 2, 2), file_names=files)


@pytest.mark.parametrize(
    ("content", "expected"),
    [
        ("1\n0\n\n", None),
        ("1\n0\n2\n", [1, 0, 2]),
        ("bee\nant\n-1\n", [1, 0, -1]),
        ("file,label\nb.png,bee\na.png,4\n", [4, 1, -1]),
        ("./b.png,\n c/c.png ,ant\n", [-1, -1, 0]),
        ('"b.png","1"\n', [-1, 1, -1]),
    ],
)
def test_labels(content: str, expected: list[int] | None, tmp_path: Path) -> None:
    (tmp_path / "l.csv").write_text(content)
    images = images_of("a.png", "b.png", "c/c.png")
    if expected is None:
        with pytest.raises(DataError, match="has 2 labels for 3 images"):
            read_labels(tmp_path / "l.csv", images, ("ant", "bee"))
    else:
        found = read_labels(tmp_path / "l.csv", images, ("ant", "bee"))
        assert found.tolist() == expected
        assert found.dtype == torch.int64


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ("wasp\n0\n", "'wasp' is no number.*--class-names"),
        ("aa.png,0\n", "no image 'aa.png'. Write 'a.png', the closest"),
        ("a.png,0\n1\n", "lines of 1, 2 columns"),
        ("", "lines of no columns"),
        ("-7\n0\n", "'-7' is no number"),
    ],
)
def test_labels_that_are_none(content: str, message: str, tmp_path: Path) -> None:
    (tmp_path / "l.csv").write_text(content)
    with pytest.raises(DataError, match=message):
        read_labels(tmp_path / "l.csv", images_of("a.png", "b.png"), None)


def test_labels_of_numpy(tmp_path: Path) -> None:
    np.save(tmp_path / "l.npy", np.array([2, -1], np.int8))
    assert read_labels(tmp_path / "l.npy", images_of("a", "b"), None).tolist() == [2, -1]
    with pytest.raises(DataError, match="wanted 3 whole numbers"):
        read_labels(tmp_path / "l.npy", images_of("a", "b", "c"), None)
    np.save(tmp_path / "l.npy", np.array([2, -2]))
    with pytest.raises(DataError, match="has the label -2"):
        read_labels(tmp_path / "l.npy", images_of("a", "b"), None)
    np.save(tmp_path / "o.npy", np.array([{}, {}]), allow_pickle=True)
    with pytest.raises(DataError, match="cannot be read as labels"):
        read_labels(tmp_path / "o.npy", images_of("a", "b"), None)


def test_labels_by_file_need_files(tmp_path: Path) -> None:
    (tmp_path / "l.csv").write_text("a.png,0\n")
    with pytest.raises(DataError, match="come from an npz file"):
        read_labels(tmp_path / "l.csv", ImageSet(images=torch.zeros(1, 1, 2, 2)), None)


# All together


def test_preprocessing_head_and_domain_reach_the_space(tmp_path: Path) -> None:
    save(tmp_path / "d" / "a.png")
    plain = read(tmp_path / "d")
    z = {}
    for name in ("double", "double_plainly"):
        found = read(tmp_path / "d", preprocess=f"{__name__}:{name}", head="3", domain="unbounded")
        assert found.space.domain.kind == "unbounded"
        z[name] = found.space.extract(found.images.images).features
    expected = plain.space.extract(plain.images.images * 2).features
    assert plain.space.domain.kind == "nonnegative"
    assert all(torch.equal(features, expected) for features in z.values())


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"preprocess": "nothing"}, "preprocess: got 'nothing'"),
        ({"preprocess": f"{__name__}:number"}, "preprocess: got .* type int"),
        ({"preprocess": f"{__name__}:gone"}, "preprocess: got .* no 'gone'"),
        ({"domain": "positive"}, "domain: got 'positive'.*auto"),
        ({"size": "big"}, "size: got 'big'"),
        ({"head": "gone"}, "gone"),
    ],
)
def test_other_texts_are_refused(changes: dict[str, Any], message: str, tmp_path: Path) -> None:
    save(tmp_path / "d" / "a.png")
    with pytest.raises(FsboundaryError, match=message):
        read(tmp_path / "d", **changes)


def test_what_can_be_refused_without_the_model_is(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def too_late(*given: object) -> None:
        pytest.fail("the model was made")

    monkeypatch.setattr(given_module, "build_model", too_late)
    save(tmp_path / "d" / "ant" / "a.png")
    save(tmp_path / "t" / "bee" / "a.png")
    (tmp_path / "n.txt").write_text("ant\nbee")
    (tmp_path / "l.csv").write_text("7\n")
    names = {"class_names": tmp_path / "n.txt"}
    for changes, message in (
        ({"labels": tmp_path / "l.csv"} | names, "labels go up to 7"),
        ({"labels": tmp_path / "gone.csv"}, "gone.csv"),
        ({"class_names": tmp_path / "l.csv"}, "'ant' is none of"),
        ({"train": tmp_path / "t"}, "Name the subfolders alike"),
        ({"train": tmp_path / "none"}, "no such file"),
    ):
        with pytest.raises(FsboundaryError, match=message):
            read(tmp_path / "d", **changes)


def test_a_folder_brings_its_training_images(tmp_path: Path) -> None:
    names = ("ant", "bee", "cat", "dog", "eel")
    for name in names:
        save(tmp_path / "t" / name / "a.png")
        save(tmp_path / "t" / name / "b.png")
    for name in ("bee", "eel"):
        save(tmp_path / "d" / name / "a.png")
    found = read(tmp_path / "d", train=tmp_path / "t")
    assert found.training is not None
    assert found.training.labels is not None
    assert found.training.labels.tolist() == [0, 0, 1, 1, 2, 2, 3, 3, 4, 4]
    # some of the classes only: by name, not by their place among the two
    assert found.images.labels is not None
    assert found.images.labels.tolist() == [1, 4]
    assert found.class_names == names


def test_training_images_come_from_one_place(tmp_path: Path) -> None:
    np.savez(tmp_path / "a.npz", images=np.zeros((2, 6, 6)), train_images=np.zeros((2, 6, 6)))
    with pytest.raises(ArgumentError, match="contains train_images too"):
        read(tmp_path / "a.npz", train=tmp_path / "a.npz")


def test_all_inputs_are_protected(tmp_path: Path) -> None:
    save(tmp_path / "d" / "a.png")
    save(tmp_path / "t" / "a.png")
    (tmp_path / "n.json").write_text(json.dumps(["a"]))
    more = {"labels": tmp_path / "l.csv", "class_names": tmp_path / "n.json"}
    given = Given(model="a:b", data=tmp_path / "d", train=tmp_path / "t", **more)
    files = set(given.files())
    assert {tmp_path / "d" / "a.png", tmp_path / "t" / "a.png", *more.values()} <= files
