"""NumPy arrays in place of tensors, in every public function of features; and label columns."""

from __future__ import annotations

import dataclasses
import inspect
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn

import fsboundary as fsb
from fsboundary import ArgumentError, Domain, FeatureBank, LinearHead, MultiLabelHead
from fsboundary.core.rows import from_array

_G = torch.Generator().manual_seed(0)
K, D, N = 3, 4, 30
W = torch.randn(K, D, generator=_G, dtype=torch.float64)
BIAS = torch.randn(K, generator=_G, dtype=torch.float64)
TRAIN = torch.rand(N, D, generator=_G, dtype=torch.float64)
LABELS = torch.arange(N) % K
Z = torch.rand(6, D, generator=_G, dtype=torch.float64)
HEAD = LinearHead(W, BIAS, Domain.nonnegative())
BANK = FeatureBank(TRAIN, LABELS)
INDEX = torch.arange(6)
Convert = Callable[[Tensor], Any]


def linear_space() -> fsb.FeatureSpace:
    """Return the space of the head alone: its features are the inputs."""
    layer = nn.Linear(W.shape[1], K).double()
    layer.weight.data, layer.bias.data = W.clone(), BIAS.clone()
    return fsb.FeatureSpace(nn.Sequential(layer).eval(), example=Z)


SPACE = linear_space()


def exported(features: Any) -> str:
    """Return the file of certificates of flip points of `features`."""
    flips = fsb.flip_points(HEAD, Z)
    with tempfile.TemporaryDirectory() as folder:
        file = Path(folder) / "certificates.json"
        return fsb.export_certificates(file, flips, head=HEAD, features=features).read_text()


CALLS: dict[str, Callable[[Convert], Any]] = {
    "LinearHead": lambda c: LinearHead(c(W), c(BIAS)).fingerprint,
    "MultiLabelHead": lambda c: MultiLabelHead(c(W), c(BIAS)).fingerprint,
    "Domain.box": lambda c: Domain.box(c(-BIAS.abs()), c(BIAS.abs())).limits(BIAS),
    "FeatureBank": lambda c: FeatureBank(c(TRAIN), c(LABELS)).digests(),
    "FeatureBank.subset": lambda c: FeatureBank(c(TRAIN), c(LABELS)).subset(labels=c(INDEX[:2])),
    "flip_points": lambda c: fsb.flip_points(HEAD, c(Z)),
    "flip_points, targets": lambda c: fsb.flip_points(HEAD, c(Z), c(INDEX % K)),
    "flip_points, callable": lambda c: fsb.flip_points(
        HEAD.logits, c(Z), c(INDEX % K), finder="linearised"
    ),
    "label_flips": lambda c: fsb.label_flips(MultiLabelHead(W, BIAS), c(Z), c(INDEX % K)),
    "label_balls": lambda c: fsb.label_balls(MultiLabelHead(W, BIAS), c(Z)),
    "tie_points": lambda c: fsb.tie_points(HEAD, c(Z), c(INDEX[:2])),
    "largest_ties": lambda c: fsb.largest_ties(HEAD, c(Z)),
    "ambiguity": lambda c: fsb.ambiguity(HEAD, c(Z), reference=c(TRAIN)),
    "region_distances": lambda c: fsb.region_distances(HEAD, c(Z)),
    "class_path": lambda c: fsb.class_path(HEAD, c(Z), c(Z.flip(0))),
    "hull_projection": lambda c: fsb.hull_projection(
        BANK, c(Z), labels=c(INDEX % K), leave_out=c(INDEX)
    ),
    "class_hull_distances": lambda c: fsb.class_hull_distances(BANK, c(Z)),
    "nearest_hulls": lambda c: fsb.nearest_hulls(BANK, c(Z), leave_out=c(INDEX)),
    "leave_one_out_distances": lambda c: fsb.leave_one_out_distances(BANK, c(INDEX)),
    "hull_separation": lambda c: fsb.hull_separation(BANK, c(INDEX[:2]), c(INDEX[1:3])),
    "affine_residuals": lambda c: fsb.affine_residuals(BANK, c(Z)),
    "guaranteed_balls": lambda c: fsb.guaranteed_balls(HEAD, c(Z)),
    "map_rows": lambda c: next(fsb.map_rows(fsb.guaranteed_balls, HEAD, c(Z)))[1],
    "FeatureBank.append": lambda c: BANK.append(c(Z), c(INDEX % K)),
    "guaranteed_boxes": lambda c: fsb.guaranteed_boxes(HEAD, c(Z)),
    "guaranteed_hulls": lambda c: fsb.guaranteed_hulls(HEAD, BANK).check(c(Z)),
    "coverage": lambda c: fsb.coverage(HEAD, BANK, c(Z), c(INDEX % K)),
    "feature_fractions": lambda c: fsb.feature_fractions(HEAD, c(Z)),
    "compare_models": lambda c: fsb.compare_models(
        {"a": SPACE},
        c(Z),
        c(INDEX % K),
        distances={"a": c(Z[:, 0].abs())},
        radii=c(torch.tensor([0.1, 0.5])),
    ),
    "partition": lambda c: fsb.partition(HEAD, pairs=c(torch.tensor([[0, 1]]))),
    "export_certificates": lambda c: exported(c(Z)),
    "logistic_head": lambda c: fsb.logistic_head(c(TRAIN), c(LABELS), K).weight,
}

ARRAYS: dict[str, Convert] = {
    "array": lambda t: t.numpy(),
    "read only": lambda t: read_only(t.numpy().copy()),
    "reversed in memory": lambda t: np.ascontiguousarray(t.numpy()[::-1])[::-1],
    "columns first": lambda t: np.asfortranarray(t.numpy()),
    "other byte order": lambda t: t.numpy().astype(t.numpy().dtype.newbyteorder()),
}


def read_only(array: Any) -> Any:
    array.flags.writeable = False
    return array


def leaves(value: object) -> list[object]:
    """Return the tensors and plain values of what a call returned."""
    if dataclasses.is_dataclass(value):
        value = tuple(getattr(value, field.name) for field in dataclasses.fields(value))
    if isinstance(value, tuple):
        return [leaf for one in value for leaf in leaves(one)]
    return [value.digests() if isinstance(value, FeatureBank) else value]


@pytest.mark.parametrize("kind", ARRAYS)
@pytest.mark.parametrize("name", CALLS)
def test_an_array_gives_what_its_tensor_gives(name: str, kind: str) -> None:
    expected = leaves(CALLS[name](lambda tensor: tensor))
    found = leaves(CALLS[name](ARRAYS[kind]))
    assert len(found) == len(expected)
    for one, other in zip(found, expected, strict=True):
        if isinstance(other, Tensor):
            assert isinstance(one, Tensor)
            # products of another memory layout may round otherwise
            torch.testing.assert_close(one, other, rtol=1e-9, atol=1e-9, equal_nan=True)
        else:
            assert one == other


def test_every_public_function_of_arrays_is_called() -> None:
    called = {name.partition(",")[0].partition(".")[0] for name in CALLS}
    for name in fsb.__all__:
        value = getattr(fsb, name)
        if inspect.isfunction(value) and "Array" in str(inspect.signature(value)):
            assert name in called, name


def test_float32_and_integers_keep_their_numbers() -> None:
    single = TRAIN.float().numpy()
    assert torch.equal(FeatureBank(single).features, TRAIN.float())
    assert torch.equal(FeatureBank(single, LABELS.numpy().astype("uint8")).labels, LABELS)  # type: ignore[arg-type]  # never None
    assert from_array(np.array(2)).shape == ()
    assert from_array(np.zeros((0, 3))).shape == (0, 3)


def test_results_do_not_follow_the_array() -> None:
    rows = Z.numpy().copy()
    balls, bank = fsb.guaranteed_balls(HEAD, rows), FeatureBank(rows)
    weight = W.numpy().copy()
    head = LinearHead(weight, None)
    rows[:], weight[:] = 7, 7
    assert torch.equal(balls.centre, Z)
    assert torch.equal(bank.features, Z)
    assert torch.equal(head.weight, W)


@pytest.mark.parametrize(
    ("array", "message"),
    [
        (np.array([["a", "b", "c", "d"]]), "an array of dtype <U1"),
        (np.empty((1, D), dtype=object), "an array of dtype object"),
        (np.zeros((1, D), dtype=np.longdouble), "an array of dtype (longdouble|float128)"),
        (np.zeros((1, D), dtype=int), r"dtype torch\.int64"),
        (np.zeros(D), rf"shape \({D},\)"),
        (np.zeros((1, D + 1)), rf"shape \(1, {D + 1}\)"),
        (np.zeros((1, D), dtype=complex), r"dtype torch\.complex128"),
    ],
)
def test_other_arrays_are_refused(array: Any, message: str) -> None:
    for call in (fsb.flip_points, fsb.guaranteed_balls):
        with pytest.raises(ArgumentError, match=f"features: got {message}"):
            call(HEAD, array)
    with pytest.raises(ArgumentError, match=f"features: got {message}"):
        fsb.hull_projection(BANK, array)


COLUMNS = torch.eye(6, K) > 0
ONE_CLASS: dict[str, Callable[[Any], object]] = {
    "labels of a bank": lambda y: FeatureBank(Z, y),
    "hull_projection": lambda y: fsb.hull_projection(BANK, Z, labels=y),
    "coverage": lambda y: fsb.coverage(HEAD, BANK, Z, y),
}


@pytest.mark.parametrize("name", ONE_CLASS)
@pytest.mark.parametrize("dtype", [torch.bool, torch.int64, torch.float32])
def test_columns_of_labels_are_no_classes(name: str, dtype: torch.dtype) -> None:
    for labels in (COLUMNS.to(dtype), COLUMNS.to(dtype).numpy()):
        with pytest.raises(ArgumentError, match=r"one column per label \(multi-label\).*argmax"):
            ONE_CLASS[name](labels)


def test_columns_of_labels_are_no_targets() -> None:
    with pytest.raises(ArgumentError, match=r"multi-label.*label_flips"):
        fsb.flip_points(HEAD, Z, COLUMNS.long())
    every = torch.arange(K).expand(6, K)
    assert fsb.flip_points(HEAD, Z, every).target.tolist() == every.tolist()


OF_CLASSES: dict[str, Callable[[Any], object]] = {
    "flip_points": lambda h: fsb.flip_points(h, Z),
    "tie_points": lambda h: fsb.tie_points(h, Z, INDEX[:2]),
    "largest_ties": lambda h: fsb.largest_ties(h, Z),
    "ambiguity": lambda h: fsb.ambiguity(h, Z),
    "region_distances": lambda h: fsb.region_distances(h, Z),
    "class_path": lambda h: fsb.class_path(h, Z, Z),
    "guaranteed_balls": lambda h: fsb.guaranteed_balls(h, Z),
    "guaranteed_boxes": lambda h: fsb.guaranteed_boxes(h, Z),
    "guaranteed_hulls": lambda h: fsb.guaranteed_hulls(h, BANK),
    "coverage": lambda h: fsb.coverage(h, BANK, Z),
    "partition": lambda h: fsb.partition(h),
    "region_faces": lambda h: fsb.region_faces(h, Z),
    "normal_angles": lambda h: fsb.normal_angles(h, 0),
    "region_fractions": lambda h: fsb.region_fractions(h, Domain.nonnegative()),
    "feature_fractions": lambda h: fsb.feature_fractions(h, Z),
    "export_certificates": lambda h: fsb.export_certificates(
        "never.json", fsb.flip_points(HEAD, Z), head=h, features=Z
    ),
}


@pytest.mark.parametrize("name", OF_CLASSES)
def test_functions_of_classes_refuse_a_head_of_labels(name: str) -> None:
    head = MultiLabelHead(W, BIAS)
    with pytest.raises(ArgumentError, match=r"head: got a MultiLabelHead.*fsboundary\.label_flips"):
        OF_CLASSES[name](head)


def test_every_public_function_of_a_linear_head_is_called() -> None:
    for name in fsb.__all__:
        value = getattr(fsb, name)
        if inspect.isfunction(value) and "head" in inspect.signature(value).parameters:
            assert name in {*OF_CLASSES, "label_flips", "label_balls"}, name
