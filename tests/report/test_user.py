"""The report on a user's own model, and its error messages."""

from __future__ import annotations

import json
import os
import re
import sys
import types
import unicodedata
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image
from safetensors.torch import save_file, save_model

from fsboundary import plugins
from fsboundary.core.errors import ArgumentError, DataError, FsboundaryError, HeadError
from fsboundary.report.inputs.factories import build_model
from fsboundary.report.inputs.loading import load_images
from fsboundary.report.inputs.weights import load_weights
from fsboundary.report.user import run_report
from support.plugins.samples import install
from support.report import NAMES, tiny_images, tiny_model

pytestmark = pytest.mark.filterwarnings("ignore::fsboundary.core.errors.ReportWarning")
"""Networks without training are near chance."""

MODULE = """
import torch
from torch import nn
from support.report import tiny_model

made = tiny_model()
number = 3


class Trap(type):
    @property
    def trap(cls):
        raise RuntimeError("trapped")


class Holder(metaclass=Trap):
    factory = staticmethod(tiny_model)


def nothing():
    return None


def wants(size):
    return tiny_model()


def raises():
    raise OSError("no such cloud")


def stops():
    raise SystemExit(3)


def on_meta():
    with torch.device("meta"):
        return tiny_model()


def head_on_meta():
    model = tiny_model()
    model[3].to("meta")
    return model


def buffer_on_meta():
    model = tiny_model()
    model.register_buffer("mean", torch.zeros(1, device="meta"), persistent=False)
    return model


def squashed():
    return nn.Sequential(tiny_model(), nn.Tanh())
"""

Archive = Callable[..., Path]


@pytest.fixture(autouse=True)
def module(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Put a module of factories, and one that fails on import, on the path."""
    (tmp_path / "own_models.py").write_text(MODULE)
    (tmp_path / "own_broken.py").write_text("import surely_not_installed\n")
    (tmp_path / "own_faulty.py").write_text("1 / 0\n")
    (tmp_path / "own_stops.py").write_text("raise SystemExit(4)\n")
    monkeypatch.syspath_prepend(tmp_path)


@pytest.fixture
def archive(tmp_path: Path) -> Archive:
    def save(**arrays: Any) -> Path:
        path = tmp_path / "images.npz"
        np.savez(path, **arrays)
        return path

    return save


@pytest.fixture
def weights(tmp_path: Path) -> Path:
    path = tmp_path / "weights.safetensors"
    model = tiny_model()
    with torch.no_grad():
        model[3].bias += 0.25  # type: ignore[operator]  # torch's stub: a submodule's attribute may be a module
    save_file(model.state_dict(), path)
    return path


def report(tmp_path: Path, data: Path, **changes: Any) -> dict[str, Any]:
    """Run the report and return its numbers."""
    page, numbers = tmp_path / "out.html", tmp_path / "out.json"
    given: dict[str, Any] = {"model": "own_models:Holder.factory", "weights": None, "data": data}
    given |= {"out": page, "json_path": numbers, "show_progress": False}
    assert run_report(**given | changes) == page
    assert "</html>" in page.read_text("utf-8")
    found: dict[str, Any] = json.loads(numbers.read_text("utf-8"))
    return found


def test_archive_with_everything(tmp_path: Path, archive: Archive, weights: Path) -> None:
    data = archive(
        images=(tiny_images(20) * 255).byte().numpy()[:, 0],
        labels=np.arange(20, dtype=np.uint8) % 5,
        class_names=np.array(NAMES),
        train_images=tiny_images(30, seed=1).double().numpy(),
        train_labels=np.arange(30) % 5,
    )
    defaults = plugins.identify(plugins.create("boundary_finder", "dual_newton")).options
    assert defaults
    hull_options = plugins.identify(plugins.create("hull_solver", "active_set")).options
    hull_options |= {"batch_size": 17}
    given = {"hull_solver": "active_set", "hull_options": hull_options}
    numbers = report(tmp_path, data, weights=weights, finder_options=defaults, **given)
    assert numbers["class_names"] == list(NAMES)
    assert numbers["overview"]["labels"]["evaluated"] == 20
    assert numbers["overview"]["title"] == "Holder.factory on images.npz"
    assert numbers["planes"]["means_of"] == "training images"
    provenance = numbers["provenance"]
    assert provenance["finder"]["options"] == defaults
    assert provenance["hull_solver"]["name"] == "active_set"
    assert provenance["hull_solver"]["distribution"] == "fsboundary"
    assert provenance["hull_solver"]["options"] == hull_options
    assert numbers["hull"]["training"] == {"total": 30, "usable": 30}
    assert provenance["facts"]["weights"] == "weights.safetensors"
    plain = report(tmp_path, data)
    assert plain["provenance"]["fingerprint"] != provenance["fingerprint"]


SURROGATE = """
import torch
import fsboundary as fsb
from fsboundary.models.new_heads import logistic_head

class Pixels(fsb.FeatureExtractor):
    surrogate = True

    def __init__(self, *, penalty: float = 1e-3):
        self.penalty, self._head = penalty, None

    def features(self, model, images, *additional):
        return images.flatten(1), model(images)

    def head(self, model):
        return self._head

    def fit(self, model, loader):
        z = torch.cat([images.flatten(1) for images in loader])
        with torch.no_grad():
            classes = torch.cat([model(images).argmax(dim=1) for images in loader])
        self._head = logistic_head(z, classes, 5, penalty=self.penalty)
        return self

@fsb.hookimpl
def register_feature_extractors():
    return [fsb.Registration("pixels", Pixels, "", capabilities=frozenset({"surrogate"}))]
"""


def test_fitted_extractor_is_fitted_on_the_training_images_and_its_fidelity_is_printed(
    tmp_path: Path, archive: Archive, monkeypatch: pytest.MonkeyPatch
) -> None:
    install(tmp_path / "site", "own_pixels", "[fsboundary]\nown = own_pixels\n", SURROGATE)
    monkeypatch.syspath_prepend(tmp_path / "site")
    monkeypatch.delenv("FSBOUNDARY_PLUGINS", raising=False)
    plugins.reset()
    try:
        data = archive(images=tiny_images(20).numpy(), train_images=tiny_images(60, seed=1).numpy())
        options = {"penalty": 0.5}
        numbers = report(tmp_path, data, extractor="pixels", extractor_options=options)
    finally:
        plugins.reset()
    provenance = numbers["provenance"]
    assert provenance["extractor"]["name"] == "pixels"
    assert provenance["extractor"]["distribution"] == "own_pixels"
    assert provenance["extractor"]["options"] == options
    held = re.fullmatch(r"(\S+): fraction of (\d+) held-out.*", provenance["notes"]["fidelity"])
    assert held
    assert 0 <= float(held[1]) <= 1
    assert 1 <= int(held[2]) <= 30
    assert "fidelity of the fitted head" in (tmp_path / "out.html").read_text("utf-8")


def test_archive_with_images_alone(tmp_path: Path, archive: Archive) -> None:
    numbers = report(tmp_path, archive(images=tiny_images(20).numpy()))
    assert numbers["overview"]["labels"] is None
    assert numbers["class_names"] == [f"class {k}" for k in range(5)]
    assert "predicted" in numbers["planes"]["means_of"]
    assert numbers["hull"] == {"training": {"total": 0, "usable": 0}}
    assert numbers["provenance"]["hull_solver"] is None


def test_folder_of_classes(tmp_path: Path) -> None:
    folder = tmp_path / "pictures"
    for k, name in enumerate(reversed(NAMES)):
        (folder / name).mkdir(parents=True)
        for n, image in enumerate(tiny_images(3, seed=k)):
            pixels = (image[0] * 255).byte().numpy()
            Image.fromarray(pixels).save(folder / name / f"{n}.{'png' if n else 'BMP'}")
    (folder / "notes.txt").write_text("not an image")
    numbers = report(tmp_path, folder)
    assert numbers["class_names"] == list(NAMES)
    rows = numbers["extremes"]["all"]
    assert [row["label"] for row in rows] == [k for k in range(5) for _ in range(3)]
    assert rows[0]["file"] == str(Path("ant") / "0.BMP")


def test_folder_without_classes_keeps_colours(tmp_path: Path) -> None:
    for n, colour in enumerate([(255, 0, 0), (0, 0, 255)]):
        Image.new("RGB", (4, 2), colour).save(tmp_path / f"{n}.png")
    Image.new("L", (4, 2), 51).save(tmp_path / "2.png")
    found = load_images(tmp_path)
    assert found.images.shape == (3, 3, 2, 4)
    assert found.labels is None
    assert found.images[0, :, 0, 0].tolist() == [1.0, 0.0, 0.0]
    assert found.images[2, :, 0, 0].tolist() == pytest.approx([0.2, 0.2, 0.2])


def test_grey_folder_has_one_channel(tmp_path: Path) -> None:
    Image.new("L", (4, 2), 255).save(tmp_path / "a.png")
    Image.new("1", (4, 2), 1).save(tmp_path / "b.png")
    assert torch.equal(load_images(tmp_path).images, torch.ones(2, 1, 2, 4))


@pytest.mark.parametrize(
    ("spec", "message"),
    [
        ("own_models", "put a colon before"),
        (":factory", "put a colon before"),
        ("no_such_module:factory", "there is no 'no_such_module'"),
        ("own_models.sub:factory", "there is no 'own_models.sub'"),
        ("own_broken:factory", "No module named 'surely_not_installed'"),
        ("own_faulty:factory", "ZeroDivisionError"),
        ("own_models:nothin", "use 'nothing', the closest name"),
        ("own_models:qqqq", "check the name"),
        ("own_models:number", "type int"),
        ("own_models:made", "wrap it in a function"),
        ("own_models:nothing", "returned an object of type NoneType"),
        ("own_models:wants", "missing 1 required positional argument"),
        ("own_models:raises", "no such cloud"),
        ("own_models:stops", "raised SystemExit: 3"),
        ("own_models:Holder.trap", "where 'trap' raised RuntimeError: trapped"),
        ("own_stops:factory", "import raised SystemExit: 4"),
        ("own_models:on_meta", "has 1.bias, 1.weight, 3.bias and 1 more on the meta device"),
        ("own_models:head_on_meta", "has 3.bias, 3.weight on the meta device"),
        ("own_models:buffer_on_meta", "has mean on the meta device"),
        ("own_models:nowhere", r"own_models is .*own_models\.py"),
    ],
)
def test_models_that_cannot_be_made(spec: str, message: str) -> None:
    with pytest.raises(ArgumentError, match=message):
        build_model(spec)


def test_the_folder_of_the_model_is_searched_last_and_for_the_factory_only(
    tmp_path: Path,
) -> None:
    folder = tmp_path / "elsewhere"
    folder.mkdir()
    for name in ("own_models", "json", "zipfile"):  # there are modules of these names
        (folder / f"{name}.py").write_text("raise OSError('the wrong module')\n")
    (folder / "own_helper.py").write_text("SIZE = 5\n")
    (folder / "own_local.py").write_text(
        "import json, sys\nassert sys.path[0] != sys.path[-1] == PLACE\n"
        "def factory():\n    import own_helper\n    from support.report import tiny_model\n"
        "    return tiny_model()\n".replace("PLACE", repr(str(folder)))
    )
    before = list(sys.path)
    build_model("own_models:Holder.factory", folder)
    build_model("own_local:factory", folder)
    assert sys.modules["own_helper"].SIZE == 5
    for spec in ("own_models:raises", "own_models:stops", "no_such_module:factory"):
        with pytest.raises(ArgumentError):
            build_model(spec, folder)
    assert sys.path == before
    with pytest.raises(ArgumentError, match="there is no 'own_elsewhere'"):
        build_model("own_elsewhere:factory")


def test_weights_are_loaded(weights: Path) -> None:
    model = tiny_model()
    load_weights(model, weights)
    expected = tiny_model().state_dict()["3.bias"] + 0.25
    assert torch.equal(model.state_dict()["3.bias"], expected)


def test_tied_weights_are_loaded(tmp_path: Path) -> None:
    def tied() -> torch.nn.Module:
        model = torch.nn.Sequential(torch.nn.Linear(3, 3), torch.nn.Linear(3, 3))
        model[1].weight = model[0].weight
        return model

    saved, loaded = tied(), tied()
    save_model(saved, str(tmp_path / "tied.safetensors"))
    load_weights(loaded, tmp_path / "tied.safetensors")
    assert torch.equal(loaded.state_dict()["1.weight"], saved.state_dict()["0.weight"])


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda state: state.pop("3.bias"), r"lacks 3\.bias"),
        (lambda state: state.update(extra=torch.ones(1)), "has but the model does not extra"),
        (lambda state: state.update({"3.bias": torch.ones(9)}), "size mismatch for 3.bias"),
        (
            lambda state: [state.update({f"m.{k}": state.pop(k)}) for k in list(state)],
            r"lacks 1\.bias, 1\.weight, 3\.bias and 1 more; has but",
        ),
    ],
)
def test_weights_that_do_not_fit(
    change: Callable[[dict[str, torch.Tensor]], object], message: str, tmp_path: Path
) -> None:
    state = tiny_model().state_dict()
    change(state)
    save_file(state, tmp_path / "w.safetensors")
    with pytest.raises(DataError, match=message):
        load_weights(tiny_model(), tmp_path / "w.safetensors")


ONE = torch.ones(2)
KINDS = {
    "float": ONE,
    "half": ONE.half(),
    "double": ONE.double(),
    "complex": ONE.cfloat(),
    "int": ONE.int(),
    "long": ONE.long(),
    "bool": ONE.bool(),
}
SAME = [{"float", "half", "double"}, {"int", "long"}]


@pytest.mark.parametrize("stored", KINDS)
@pytest.mark.parametrize("wanted", KINDS)
def test_weights_keep_their_kind(stored: str, wanted: str, tmp_path: Path) -> None:
    model = torch.nn.Module()
    model.register_buffer("w", torch.zeros_like(KINDS[wanted]))
    save_file({"w": KINDS[stored]}, tmp_path / "w.safetensors")
    if stored == wanted or any({stored, wanted} <= group for group in SAME):
        load_weights(model, tmp_path / "w.safetensors")
        assert torch.equal(model.state_dict()["w"], KINDS[wanted])
        return
    with pytest.raises(DataError, match=r"w\.safetensors: w contains .* but the model's are"):
        load_weights(model, tmp_path / "w.safetensors")
    assert not model.state_dict()["w"].any()


@pytest.mark.parametrize(
    ("value", "dtype"),
    [
        (torch.tensor([7e4]), torch.float16),
        (torch.tensor([1e300], dtype=torch.float64), torch.float32),
        (torch.tensor([2**40]), torch.int32),
        (torch.tensor([-1]), torch.uint8),
    ],
)
def test_weights_that_overflow_are_refused(
    value: torch.Tensor, dtype: torch.dtype, tmp_path: Path
) -> None:
    model = torch.nn.Module()
    model.register_buffer("w", torch.zeros(1, dtype=dtype))
    save_file({"w": value}, tmp_path / "w.safetensors")
    with pytest.raises(DataError, match="numbers in w are too large for the precision"):
        load_weights(model, tmp_path / "w.safetensors")


def test_weights_that_are_a_pipe_are_refused(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "w.safetensors")
    with pytest.raises(DataError, match="is no file"):
        load_weights(tiny_model(), tmp_path / "w.safetensors")


@pytest.mark.parametrize("content", [b"", b"not tensors at all", None])
def test_weights_that_cannot_be_read(content: bytes | None, tmp_path: Path) -> None:
    path = tmp_path / "w.safetensors"
    if content is not None:
        path.write_bytes(content)
    with pytest.raises(DataError, match="not a readable safetensors file"):
        load_weights(tiny_model(), path)


def write_folders(root: Path, names: list[str]) -> None:
    """Write one image into each subfolder, as bright as the position of its name."""
    for brightness, name in enumerate(names):
        (root / name).mkdir()
        Image.fromarray(np.full((4, 4), brightness, np.uint8)).save(root / name / "a.png")


@pytest.mark.parametrize("names", [[str(k) for k in range(12)], [f"{k:03}" for k in range(12)]])
def test_folders_named_by_numbers_are_these_classes(names: list[str], tmp_path: Path) -> None:
    write_folders(tmp_path, names)
    found = load_images(tmp_path)
    assert found.labels.tolist() == list(range(12))
    assert torch.equal((found.images[:, 0, 0, 0] * 255).round().long(), found.labels)
    assert found.class_names == tuple(names)


def test_missing_numbers_leave_the_other_classes_in_place(tmp_path: Path) -> None:
    write_folders(tmp_path, ["2", "10"])
    found = load_images(tmp_path)
    assert found.labels.tolist() == [2, 10]
    assert found.class_names is None


@pytest.mark.parametrize("names", [["1", "01"], ["0", "1", "cat"]])
def test_other_names_are_classes_in_sorted_order(names: list[str], tmp_path: Path) -> None:
    write_folders(tmp_path, names)
    found = load_images(tmp_path)
    assert found.labels.tolist() == list(range(len(names)))
    assert found.class_names == tuple(sorted(names))


def test_labels_of_an_archive_may_be_missing_per_image(tmp_path: Path) -> None:
    path = tmp_path / "images.npz"
    np.savez(path, images=np.zeros((3, 4, 4), np.uint8), labels=np.array([0, -1, 2]))
    assert load_images(path).labels.tolist() == [0, -1, 2]


IMAGES = np.zeros((4, 1, 6, 6), dtype=np.float32)


@pytest.mark.parametrize(
    ("arrays", "message"),
    [
        ({"pictures": IMAGES}, "wanted an array 'images'"),
        ({"images": IMAGES[0, 0]}, r"shape \(6, 6\)"),
        ({"images": IMAGES[:0]}, "not empty"),
        ({"images": IMAGES.transpose(0, 2, 3, 1)}, "channels last"),
        ({"images": IMAGES.astype(np.int64)}, "type int64"),
        ({"images": IMAGES + 2}, "images range from 2 to 2"),
        ({"images": IMAGES - 1}, "images range from -1 to -1"),
        ({"images": IMAGES + np.inf}, "to inf"),
        ({"images": IMAGES, "labels": np.zeros(3, int)}, "wanted 4 whole numbers from 0"),
        ({"images": IMAGES, "labels": np.zeros(4)}, "type float64"),
        ({"images": IMAGES, "labels": np.zeros(4, bool)}, "type bool"),
        ({"images": IMAGES, "labels": np.zeros(4, "m8[s]")}, r"type timedelta64\[s\]"),
        ({"images": IMAGES, "labels": np.zeros(4, "M8[s]")}, r"type datetime64\[s\]"),
        ({"images": IMAGES, "labels": np.zeros(4, complex)}, "type complex128"),
        ({"images": IMAGES, "labels": np.full(4, -2)}, "the smallest -2"),
        ({"images": IMAGES, "labels": np.full(4, 5)}, "labels go up to 5, but the model has 5"),
        ({"images": IMAGES, "class_names": np.arange(5)}, "wanted a list of str"),
        ({"images": IMAGES, "class_names": np.array(["a", "b"])}, "2 class names"),
        ({"images": IMAGES, "labels": np.array([None] * 4)}, "without pickle"),
        ({"images": IMAGES[:, :, :5]}, r"does not accept images of shape \(1, 5, 6\)"),
        ({"images": IMAGES, "train_images": IMAGES[:, :, :5]}, r"shape \(1, 5, 6\)"),
        (
            {"images": IMAGES, "train_images": IMAGES, "train_labels": np.full(4, 7)},
            "train_labels go up to 7",
        ),
    ],
)
def test_archives_that_do_not_do(
    arrays: dict[str, Any], message: str, archive: Archive, tmp_path: Path
) -> None:
    with pytest.raises(DataError, match=message):
        report(tmp_path, archive(**arrays))


def test_all_images_not_a_number(archive: Archive, tmp_path: Path) -> None:
    images = tiny_images(6).numpy()
    images[2] = np.nan
    numbers = report(tmp_path, archive(images=images))
    assert numbers["overview"]["with_distance"] == 5


def test_files_that_are_no_archives(tmp_path: Path) -> None:
    (tmp_path / "a.npz").write_bytes(b"something else")
    with pytest.raises(DataError, match=r"not an \.npz file"):
        load_images(tmp_path / "a.npz")
    with pytest.raises(DataError, match="no such file or folder"):
        load_images(tmp_path / "b.npz")


def test_folders_that_do_not_do(tmp_path: Path) -> None:
    folder = tmp_path / "pictures"
    (folder / "ant").mkdir(parents=True)
    with pytest.raises(DataError, match="contains no image"):
        load_images(folder)
    Image.new("L", (4, 2)).save(folder / "ant" / "a.png")
    Image.new("L", (3, 2)).save(folder / "ant" / "b.png")
    with pytest.raises(DataError, match=r"b\.png: is 3 x 2 pixels, but a\.png is 4 x 2"):
        load_images(folder)
    (folder / "ant" / "b.png").write_bytes(b"no image")
    with pytest.raises(DataError, match=r"b\.png: cannot be read as an image"):
        load_images(folder)
    Image.fromarray(np.zeros((2, 4), dtype=np.uint16)).save(folder / "ant" / "b.png")
    with pytest.raises(DataError, match=r"b\.png: has more than 8 bits"):
        load_images(folder)
    Image.new("L", (4, 2)).save(folder / "c.png")
    with pytest.raises(DataError, match=r"Move c\.png"):
        load_images(folder)


def test_names_that_are_not_text_reach_the_page(tmp_path: Path) -> None:
    folder = tmp_path / os.fsdecode(b"pictures \xff\xe2\x80\xae")
    for k, name in enumerate(NAMES):
        inner = folder / (os.fsdecode(b"\xfe") + name)
        inner.mkdir(parents=True)
        for n, image in enumerate(tiny_images(3, seed=k)):
            with (inner / f"{n}\x1b\n\u202e.png").open("wb") as stream:
                Image.fromarray((image[0] * 255).byte().numpy()).save(stream, "PNG")
    out = tmp_path / os.fsdecode(b"page \xff.html")
    run_report(
        model="own_models:Holder.factory",
        weights=None,
        data=folder,
        out=out,
        json_path=tmp_path / "out.json",
        show_progress=False,
    )
    page, text = out.read_text("utf-8"), (tmp_path / "out.json").read_text("utf-8")
    numbers = json.loads(text)
    assert numbers["class_names"] == [f"\\xfe{name}" for name in NAMES]
    assert numbers["extremes"]["all"][0]["file"] == rf"\xfe{NAMES[0]}/0\x1b\n\u202e.png"
    assert numbers["overview"]["title"] == r"Holder.factory on pictures \xff\u202e"
    assert rf"\xfe{NAMES[0]}" in page
    for written in (page, text):
        assert {unicodedata.category(c) for c in written if c != "\n"} & {"Cc", "Cf", "Cs"} == set()


def _linked(path: Path) -> Path:
    path.with_name("linked").symlink_to(path)
    return path.with_name("linked")


def _hard(path: Path) -> Path:
    path.with_name("hard").hardlink_to(path)
    return path.with_name("hard")


@pytest.mark.parametrize("output", ["out", "json_path"])
@pytest.mark.parametrize("source", ["data", "weights", "image", "model", "library"])
@pytest.mark.parametrize("alias", [_linked, _hard, lambda path: path])
def test_inputs_are_never_replaced(
    output: str,
    source: str,
    alias: Callable[[Path], Path],
    tmp_path: Path,
    archive: Archive,
    weights: Path,
) -> None:
    folder = tmp_path / "pictures"
    folder.mkdir()
    Image.new("L", (6, 6)).save(folder / "a.png")
    data = folder if source == "image" else archive(images=IMAGES)
    library = tmp_path / "library.py"
    library.write_text("")
    (tmp_path / "own_fresh.py").write_text(MODULE)
    path = {
        "data": data,
        "weights": weights,
        "image": folder / "a.png",
        "model": tmp_path / "own_fresh.py",
        "library": library,
    }[source]
    sys.modules["own_library"] = module = types.ModuleType("own_library")
    module.__file__ = str(library)
    before = path.read_bytes()
    given = {"out": tmp_path / "r.html"} | {output: alias(path)}
    try:
        with pytest.raises(ArgumentError, match=f"{output}: got .*, which is the input"):
            run_report(
                model="own_fresh:Holder.factory",
                weights=weights,
                data=data,
                force=True,
                show_progress=False,
                **given,
            )
    finally:
        del sys.modules["own_library"]
        sys.modules.pop("own_fresh", None)  # each test has a file of its own
    assert path.read_bytes() == before
    assert not (tmp_path / "r.html").exists()


def test_wrong_number_of_subfolders(tmp_path: Path) -> None:
    for name in ("ant", "bee"):
        (tmp_path / "p" / name).mkdir(parents=True)
        Image.new("L", (6, 6)).save(tmp_path / "p" / name / "a.png")
    with pytest.raises(DataError, match="2 class names"):
        report(tmp_path, tmp_path / "p")


@pytest.mark.parametrize(
    ("changes", "error", "message"),
    [
        ({"finder": "dual_newtn"}, ArgumentError, "dual_newton"),
        ({"finder_options": {"speed": 1}}, ArgumentError, "speed"),
        ({"hull_solver": "activ_set"}, ArgumentError, "active_set"),
        ({"hull_options": {"speed": 1}}, ArgumentError, "speed"),
        ({"out": Path("no/such/folder/r.html")}, ArgumentError, "no/such/folder"),
        ({"model": "own_models:squashed"}, HeadError, "linear"),
    ],
)
def test_other_arguments(
    changes: dict[str, Any],
    error: type[FsboundaryError],
    message: str,
    archive: Archive,
    tmp_path: Path,
) -> None:
    with pytest.raises(error, match=message):
        report(tmp_path, archive(images=IMAGES), **changes)
