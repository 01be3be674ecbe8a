"""Shared objects, public calls on them, and all ways to write to what a user can reach.

A world owns one space, one head, one bank and what is made from them, all built from a seed, so
that an equal world without a past can be built at any time: its answers are the right ones.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Iterator
from typing import Any

import torch
from torch import Tensor, nn

import fsboundary as fsb

CLASSES, SIDE = 4, 4


class World:
    """Objects that calls share, built from `seed`.

    Parameters
    ----------
    seed : int
        Its remainders select the domain (proved nonnegative, unbounded, or a box), the dtype of
        the model, and whether the body is empty, so that features are the images' own numbers.
    """

    def __init__(self, seed: int) -> None:
        self.seed = seed
        generator = torch.Generator().manual_seed(seed)
        dtype = torch.float64 if seed % 2 else torch.float32
        kind = seed % 3
        width = SIDE * SIDE if kind == 2 else 5

        def linear(inputs: int, outputs: int) -> nn.Linear:
            layer = nn.Linear(inputs, outputs, dtype=dtype)
            layer.weight.data = torch.randn(outputs, inputs, generator=generator, dtype=dtype)
            layer.bias.data = torch.randn(outputs, generator=generator, dtype=dtype) / 4
            return layer

        body = [linear(SIDE * SIDE, width), nn.ReLU() if kind == 0 else nn.Tanh()]
        head = linear(width, CLASSES)
        self.model = nn.Sequential(nn.Flatten(), *([] if kind == 2 else body), head).eval()
        self.images = torch.rand(5, 1, SIDE, SIDE, generator=generator, dtype=dtype)
        self.train = torch.rand(24, 1, SIDE, SIDE, generator=generator, dtype=dtype)
        self.train[7] = self.train[3]  # an exact copy, which leave-one-out leaves out too
        self.labels = torch.arange(24) % 3
        self.low = torch.full((width,), -1.0 if kind == 1 else 0.0, dtype=torch.float64)
        self.domain = fsb.Domain.box(self.low, self.low.clone().fill_(1.0))
        domain: Any = "auto" if kind == 0 else self.domain
        self.space = fsb.FeatureSpace(self.model, domain=domain)
        self.batch = self.space.extract(self.images)
        self._features = self.batch.features.to(torch.float64, copy=True)
        self.bank = fsb.FeatureBank(self.space.extract(self.train).features, self.labels)
        self.head = self.space.head
        self.labels_head = fsb.MultiLabelHead(self.head.weight, self.head.bias, self.head.domain)
        self.hulls = fsb.guaranteed_hulls(self.head, self.bank)
        self.boundary = fsb.attr.BoundaryDistance(self.space)
        self.hull = fsb.attr.HullDistance(self.space, self.bank)
        self.class_hull = fsb.attr.ClassHullDistance(self.space, self.bank, [0, 1, 2])

    def inputs(self) -> Inputs:
        """Return arguments of calls that nothing else holds."""
        features = self._features.clone()
        return Inputs(
            images=self.images.clone(),
            features=features,
            others=features.flip(0).contiguous(),
            targets=(self.head.predict(features) + 1) % CLASSES,
            pair=torch.tensor([0, 1]),
            predicted=self.head.predict(features),
            labels=torch.arange(len(features)) % 3,
            rows=torch.arange(len(features)),
        )


@dataclasses.dataclass(slots=True)
class Inputs:
    """Arguments of calls: images, features, and integers of each row."""

    images: Tensor
    features: Tensor
    others: Tensor
    targets: Tensor
    pair: Tensor
    predicted: Tensor
    labels: Tensor
    rows: Tensor


def _gradient(module: nn.Module, images: Tensor) -> tuple[Tensor, ...]:
    leaf = images.clone().requires_grad_()
    value = module(leaf)
    (gradient,) = torch.autograd.grad(value.nan_to_num(0, 0, 0).sum(), leaf)
    return value.detach(), gradient


def _notes(world: World) -> dict[str, str]:
    """Return the notes except those that describe what was extracted so far."""
    of_the_past = ("residual", "observed minimum")
    return {name: text for name, text in world.space.notes().items() if name not in of_the_past}


Call = Callable[[World, Inputs], Any]

CALLS: dict[str, Call] = {
    "extract": lambda w, i: w.space.extract(i.images),
    "features": lambda w, i: w.space.features(i.images).detach(),
    "logits": lambda w, i: w.space.logits(i.images).detach(),
    "bank of a loader": lambda w, i: w.space.bank([(i.images, i.labels)]),
    "fingerprints": lambda w, i: (w.space.fingerprint, w.head.fingerprint, _notes(w)),
    "head": lambda w, i: (w.head, w.head.logits(i.features), w.head.margins(i.features)),
    "domain": lambda w, i: (w.domain.limits(i.features), w.domain.violation(i.features)),
    "bank": lambda w, i: (w.bank, w.bank.range(), w.bank.moments(), w.bank.digests()),
    "price": lambda w, i: w.bank.price(i.features, 3, i.rows),
    "take": lambda w, i: w.bank.take(i.rows),
    "subset": lambda w, i: w.bank.subset(labels=i.labels[:2]),
    "select": lambda w, i: w.bank.select(i.rows),
    "flip_points nearest": lambda w, i: fsb.flip_points(w.head, i.features),
    "flip_points all": lambda w, i: fsb.flip_points(w.head, i.features, "all"),
    "flip_points targets": lambda w, i: fsb.flip_points(w.head, i.features, i.targets),
    "flip_points closed_form": lambda w, i: fsb.flip_points(
        w.head, i.features, "all", finder="closed_form"
    ),
    "flip_points nonlinear": lambda w, i: fsb.flip_points(
        w.model[-1], i.features[:2].to(w.images.dtype), finder="linearised"
    ),
    "tie_points": lambda w, i: fsb.tie_points(w.head, i.features, i.pair),
    "label_flips": lambda w, i: fsb.label_flips(w.labels_head, i.features),
    "label_flips set": lambda w, i: fsb.label_flips(
        w.labels_head, i.features, i.features[:, :CLASSES] > 0.3
    ),
    "label_balls": lambda w, i: fsb.label_balls(w.labels_head, i.features),
    "largest_ties": lambda w, i: fsb.largest_ties(w.head, i.features),
    "ambiguity": lambda w, i: fsb.ambiguity(w.head, i.features, reference=w.bank),
    "region_distances": lambda w, i: fsb.region_distances(w.head, i.features),
    "class_path": lambda w, i: fsb.class_path(w.head, i.features, i.others),
    "guaranteed_balls": lambda w, i: fsb.guaranteed_balls(w.head, i.features),
    "guaranteed_balls linf": lambda w, i: fsb.guaranteed_balls(w.head, i.features, "linf"),
    "guaranteed_boxes": lambda w, i: fsb.guaranteed_boxes(w.head, i.features),
    "guaranteed_hulls": lambda w, i: fsb.guaranteed_hulls(w.head, w.bank),
    "GuaranteedHulls.check": lambda w, i: w.hulls.check(i.features),
    "GuaranteedHulls.inflated": lambda w, i: w.hulls.inflated().check(i.features),
    "coverage": lambda w, i: fsb.coverage(w.head, w.bank, i.features, i.labels, hulls=w.hulls),
    "coverage_fractions": lambda w, i: fsb.coverage_fractions(
        fsb.coverage(w.head, w.bank, i.features, i.labels)
    ),
    "feature_fractions": lambda w, i: fsb.feature_fractions(w.head, i.features),
    "region_fractions": lambda w, i: fsb.region_fractions(w.head, w.domain, samples=500),
    "region_faces": lambda w, i: fsb.region_faces(w.head, 0, w.domain),
    "normal_angles": lambda w, i: fsb.normal_angles(w.head, 0),
    "partition": lambda w, i: fsb.partition(w.head, w.domain),
    "hull_projection": lambda w, i: fsb.hull_projection(w.bank, i.features),
    "hull_projection labels": lambda w, i: fsb.hull_projection(w.bank, i.features, labels=i.labels),
    "hull_projection leave_out": lambda w, i: fsb.hull_projection(
        w.bank, w.bank.take(i.rows), leave_out=i.rows
    ),
    "hull_projection interior_point": lambda w, i: fsb.hull_projection(
        w.bank, i.features, solver="interior_point"
    ),
    "hull_projection nnls": lambda w, i: fsb.hull_projection(w.bank, i.features, solver="nnls"),
    "hull_projection leave_out nnls": lambda w, i: fsb.hull_projection(
        w.bank, w.bank.take(i.rows), leave_out=i.rows, solver="nnls"
    ),
    "hull_projection of a subset": lambda w, i: fsb.hull_projection(
        w.bank.subset(labels=[0, 2]), i.features
    ),
    "hull_projection away_steps": lambda w, i: fsb.hull_projection(
        w.bank, i.features, solver="away_steps"
    ),
    "compare_models": lambda w, i: fsb.compare_models({"a": w.space}, i.images, i.labels),
    "triage": lambda w, i: list(
        fsb.triage(w.space, [i.images], fsb.Reference.fit(w.space, [(i.images, i.labels)], "given"))
    ),
    "nearest_hulls": lambda w, i: fsb.nearest_hulls(w.bank, i.features),
    "class_hull_distances": lambda w, i: fsb.class_hull_distances(w.bank, i.features),
    "leave_one_out_distances": lambda w, i: fsb.leave_one_out_distances(w.bank, i.rows),
    "extrapolation": lambda w, i: fsb.extrapolation(
        fsb.hull_projection(w.bank, i.features), fsb.leave_one_out_distances(w.bank, i.rows)
    ),
    "hull_vertices": lambda w, i: fsb.hull_vertices(w.bank),
    "hull_separation": lambda w, i: fsb.hull_separation(w.bank, i.pair[:1], i.pair[1:]),
    "affine_rank": lambda w, i: fsb.affine_rank(w.bank),
    "affine_residuals": lambda w, i: fsb.affine_residuals(w.bank, i.features),
    "BoundaryDistance": lambda w, i: _gradient(w.boundary, i.images),
    "HullDistance": lambda w, i: _gradient(w.hull, i.images),
    "ClassHullDistance": lambda w, i: _gradient(w.class_hull, i.images),
    "BoundaryDirection": lambda w, i: fsb.attr.BoundaryDirection(w.space).attribute(i.images),
    "HullInfluence": lambda w, i: fsb.attr.HullInfluence(w.space, w.bank).influence(i.images),
    "BoundaryPush": lambda w, i: fsb.attr.BoundaryPush(w.space, steps=2).perturb(i.images, 0.1),
    "flip_images": lambda w, i: fsb.pixels.flip_images(w.space, i.images[:2], max_steps=20),
    "flip_images targets": lambda w, i: fsb.pixels.flip_images(
        w.space, i.images[:2], i.targets[:2], max_steps=20, labels=i.predicted[:2]
    ),
    "crossed_images": lambda w, i: fsb.pixels.crossed_images(
        w.space, fsb.pixels.flip_images(w.space, i.images[:2], max_steps=20), margin=0.01
    ),
    "FlipImageAttribution": lambda w, i: fsb.attr.FlipImageAttribution(w.space).attribute(
        i.images[:2]
    ),
    "LayerBoundaryDirection": lambda w, i: fsb.attr.LayerBoundaryDirection(
        w.space, w.space.model[0]
    ).attribute(i.images),
    "inverse_images": lambda w, i: fsb.pixels.inverse_images(
        w.space, i.features, i.images, max_steps=3
    ),
    "morph": lambda w, i: fsb.pixels.morph(
        w.space, i.images, i.images.flip(0), steps=2, max_steps=2, labels=i.predicted
    ),
    "amplification": lambda w, i: fsb.pixels.amplification(
        w.space, i.images, radius=0.1, directions=2, max_steps=2, labels=i.predicted
    ),
}

Handle = Callable[[World], Tensor]

HANDLES: dict[str, Handle] = {
    "head.weight": lambda w: w.head.weight,
    "head.bias": lambda w: w.head.bias,
    "space.head.weight": lambda w: w.space.head.weight,
    "labels_head.weight": lambda w: w.labels_head.weight,
    "labels_head.bias": lambda w: w.labels_head.bias,
    "label_head.weight": lambda w: w.labels_head.label_head(1).weight,
    "head.to": lambda w: w.head.to(torch.device("cpu")).weight,
    "head.logits": lambda w: w.head.logits(w.batch.features),
    "domain.limits": lambda w: w.domain.limits(w.low)[0],
    "head.domain.limits": lambda w: w.head.domain.limits(w.low)[1],
    "domain.clip": lambda w: w.domain.clip(w.low + 2),
    "lower limit of the domain": lambda w: w.low,
    "features given to the bank": lambda w: w.batch.features,
    "labels given to the bank": lambda w: w.labels,
    "bank.features": lambda w: w.bank.features,
    "bank.labels": lambda w: _present(w.bank.labels),
    "bank.ids": lambda w: w.bank.ids,
    "bank.take": lambda w: w.bank.take(torch.arange(5)),
    "bank.range": lambda w: w.bank.range()[0],
    "bank.moments": lambda w: w.bank.moments().mean,
    "bank.digests": lambda w: w.bank.digests(),
    "bank.price": lambda w: w.bank.price(w.bank.features[:2], 2)[0],
    "bank.subset": lambda w: w.bank.subset(labels=0).features,
    "bank.select": lambda w: w.bank.select(torch.arange(24)).features,
    "hulls.clearance": lambda w: w.hulls.clearance,
    "hulls.counts": lambda w: w.hulls.counts,
    "hulls.status": lambda w: w.hulls.status,
    "hulls.head.weight": lambda w: w.hulls.head.weight,
    "hulls.bank.features": lambda w: w.hulls.bank.features,
    "hulls.generators": lambda w: next(b for b in w.hulls.generators if b).features,
}
"""Tensors that belong to the user, by where they come from."""


def _present(value: Tensor | None) -> Tensor:
    assert value is not None
    return value


def _swap(t: Tensor) -> None:
    other = torch.full_like(t, 3)
    t.set_(other)  # type: ignore[call-overload]  # the form with one tensor is not annotated


WRITES: dict[str, Callable[[Tensor], Any]] = {
    "method in place": lambda t: t.mul_(1000),
    "index": lambda t: t.__setitem__(0, 7),
    "out=": lambda t: torch.mul(t, 3, out=t),
    "data": lambda t: t.data.zero_(),
    "numpy": lambda t: t.numpy().fill(5),
    "swapped storage": _swap,
}
"""Ways to write to a tensor; the last three leave its version counter as it was."""


def wreck(value: Any) -> None:
    """Overwrite every tensor in `value`."""
    for tensor in dict(tensors_of(value)).values():
        if tensor.numel():
            tensor.numpy().fill(77)


def snapshot(value: Any) -> dict[str, Tensor]:
    """Return copies of everything in `value` that can be compared, by path."""
    return {path: tensor.clone() for path, tensor in tensors_of(value)}


def tensors_of(value: Any, path: str = "") -> Iterator[tuple[str, Tensor]]:
    """Yield the tensors in `value` and in its parts, with their paths; text as its bytes."""
    if isinstance(value, Tensor):
        yield path, value.detach()
    elif isinstance(value, bool | int | float):
        yield path, torch.tensor(value, dtype=torch.float64)
    elif isinstance(value, str):
        yield path, torch.frombuffer(bytearray(value.encode() or b"\0"), dtype=torch.uint8)
    elif isinstance(value, fsb.FeatureBank):
        yield from tensors_of((value.features, value.labels, value.ids), path)
    elif isinstance(value, fsb.LinearHead):
        yield from tensors_of((value.weight, value.bias, value.fingerprint), path)
    elif isinstance(value, fsb.GuaranteedHulls):
        parts = (value.clearance, value.counts, value.status, value.generators)
        yield from tensors_of(parts, path)
    elif isinstance(value, dict):
        for key, part in value.items():
            yield from tensors_of(part, f"{path}.{key}")
    elif isinstance(value, tuple | list):
        for number, part in enumerate(value):
            yield from tensors_of(part, f"{path}.{number}")
    elif dataclasses.is_dataclass(value):
        for field in dataclasses.fields(value):
            yield from tensors_of(getattr(value, field.name), f"{path}.{field.name}")
    else:
        assert value is None, f"{path} is a {type(value).__name__}, which no comparison covers"


def differences(found: dict[str, Tensor], right: dict[str, Tensor], rtol: float = 0.0) -> list[str]:
    """Return where two snapshots differ: numbers by more than `rtol`, all others at all."""
    faults = [f"{path} is only in one of the two" for path in found.keys() ^ right.keys()]
    for path in found.keys() & right.keys():
        a, b = found[path], right[path]
        if a.dtype != b.dtype or a.shape != b.shape:
            faults.append(f"{path}: {a.dtype} {tuple(a.shape)}, right: {b.dtype} {tuple(b.shape)}")
        elif a.is_floating_point():
            if not torch.allclose(a, b, rtol=rtol, atol=rtol, equal_nan=True):
                worst = (a - b).abs().nan_to_num(torch.inf).max()
                faults.append(f"{path}: off by {float(worst):.3g}")
        elif not torch.equal(a, b):
            faults.append(f"{path}: {a.flatten()[:9].tolist()}, right: {b.flatten()[:9].tolist()}")
    return sorted(faults)


def answers(world: World, names: list[str] | None = None) -> dict[str, dict[str, Tensor]]:
    """Return snapshots of the answers of calls, by name."""
    chosen = CALLS if names is None else {name: CALLS[name] for name in names}
    return {name: snapshot(call(world, world.inputs())) for name, call in chosen.items()}
