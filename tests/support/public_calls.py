"""One call of every public function on a small model; answers as named tensors and numbers."""

from __future__ import annotations

import dataclasses
import functools
from collections.abc import Callable, Iterator, Mapping
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch
from captum.attr import Saliency
from torch import Tensor, nn

import fsboundary as fsb
from fsboundary import analysis, attr, pixels, scores


@functools.cache
def world() -> SimpleNamespace:
    """Return a small model and the inputs of all calls, made without any mode."""
    g = torch.Generator().manual_seed(0)
    model = nn.Sequential(nn.Flatten(), nn.Linear(16, 6), nn.ReLU(), nn.Linear(6, 3)).eval()
    with torch.no_grad():
        for p in model.parameters():
            p.copy_(torch.randn(p.shape, generator=g) * 0.7)
    space = fsb.FeatureSpace(model)
    images = torch.rand(4, 1, 4, 4, generator=g)
    train = torch.rand(40, 1, 4, 4, generator=g)
    train_labels = torch.arange(40) % 3
    z = space.extract(images).features
    bank = fsb.FeatureBank(space.extract(train).features, train_labels)
    flips = pixels.flip_images(model, images, max_steps=10)
    nonlinear = nn.Sequential(nn.Linear(6, 5), nn.Tanh(), nn.Linear(5, 3)).eval()
    with torch.no_grad():
        for p in nonlinear.parameters():
            p.copy_(torch.randn(p.shape, generator=g))
    return SimpleNamespace(
        model=model,
        nonlinear=nonlinear,
        space=space,
        images=images,
        train=train,
        train_labels=train_labels,
        labels=torch.tensor([0, 1, 2, 0]),
        z=z,
        far=z + 2.0,
        bank=bank,
        flips=flips,
        head=space.head,
        labels_head=fsb.MultiLabelHead(space.head.weight, space.head.bias, space.head.domain),
        box=fsb.Domain.box(torch.zeros(6), torch.full((6,), 2.0)),
        balls=fsb.guaranteed_hulls(space.head, bank),
        batch=space.extract(images),
        reference=fsb.Reference.fit(space, [(train, train_labels)], "given"),
    )


Call = Callable[[SimpleNamespace], Any]


def _hulls(solver: str) -> Call:
    return lambda w: fsb.hull_projection(w.bank, w.far, solver=solver, labels=w.labels)


def _flips(finder: str) -> Call:
    return lambda w: fsb.flip_points(w.head, w.z, "all", finder=finder)


def _images(finder: str) -> Call:
    return lambda w: pixels.flip_images(w.model, w.images[:2], finder=finder, max_steps=4)


def _gradient(make: Callable[[SimpleNamespace], nn.Module]) -> Call:
    """Return a call of the gradient of a distance module, for which gradients must be on."""

    def call(w: SimpleNamespace) -> Tensor:
        with torch.inference_mode(False), torch.enable_grad():
            x = w.images.detach().clone().requires_grad_()
            total = make(w)(x).sum()
            with torch.autocast("cpu", enabled=False):  # as torch asks for of backward passes
                gradient: Tensor = torch.autograd.grad(total, x)[0]
        return gradient

    return call


DISTANCES: dict[str, Callable[[SimpleNamespace], nn.Module]] = {
    "BoundaryDistance": lambda w: attr.BoundaryDistance(w.space),
    "HullDistance": lambda w: attr.HullDistance(w.space, w.bank),
    "ClassHullDistance": lambda w: attr.ClassHullDistance(w.space, w.bank),
}


def _value(make: Callable[[SimpleNamespace], nn.Module]) -> Call:
    return lambda w: make(w)(w.images).detach()


CALLS: dict[str, Call] = {
    "affine_rank": lambda w: fsb.affine_rank(w.bank),
    "affine_residuals": lambda w: fsb.affine_residuals(w.bank, w.far),
    "ambiguity": lambda w: fsb.ambiguity(w.head, w.z, 2, w.bank),
    "class_hull_distances": lambda w: fsb.class_hull_distances(w.bank, w.far),
    "class_path": lambda w: fsb.class_path(w.head, w.z, w.z.flip(0)),
    "coverage": lambda w: fsb.coverage(w.head, w.bank, w.z),
    "coverage_fractions": lambda w: fsb.coverage_fractions(
        fsb.coverage(w.head, w.bank, w.z, w.labels)
    ),
    "extrapolation": lambda w: fsb.extrapolation(
        fsb.hull_projection(w.bank, w.far), fsb.leave_one_out_distances(w.bank, 9)
    ),
    "feature_fractions": lambda w: fsb.feature_fractions(w.head, w.z),
    **{f"flip_points {f}": _flips(f) for f in ("dual_newton", "cvxpy", "closed_form")},
    "flip_points nonlinear": lambda w: fsb.flip_points(
        w.nonlinear, w.z, finder="linearised", max_steps=3
    ),
    "guaranteed_balls": lambda w: fsb.guaranteed_balls(w.head, w.z),
    "guaranteed_balls linf": lambda w: fsb.guaranteed_balls(w.head, w.z, "linf"),
    "guaranteed_boxes": lambda w: fsb.guaranteed_boxes(w.head, w.z),
    "guaranteed_hulls": lambda w: fsb.guaranteed_hulls(w.head, w.bank),
    "GuaranteedHulls.check": lambda w: w.balls.check(w.z),
    "GuaranteedHulls.certify": lambda w: w.balls.certify(w.z),
    "GuaranteedHulls.inflated": lambda w: w.balls.inflated(),
    **{
        f"hull_projection {s}": _hulls(s)
        for s in ("active_set", "away_steps", "cvxpy", "interior_point", "nnls")
    },
    "hull_separation": lambda w: fsb.hull_separation(w.bank, 0, 1),
    "hull_vertices": lambda w: fsb.hull_vertices(w.bank),
    "label_flips": lambda w: fsb.label_flips(w.labels_head, w.z),
    "label_flips all": lambda w: fsb.label_flips(w.labels_head, w.z, "all"),
    "label_flips set": lambda w: fsb.label_flips(w.labels_head, w.z, w.z[:, :3] > 1),
    "label_balls": lambda w: fsb.label_balls(w.labels_head, w.z),
    "label_balls linf": lambda w: fsb.label_balls(w.labels_head, w.z, "linf"),
    "largest_ties": lambda w: fsb.largest_ties(w.head, w.z),
    "leave_one_out_distances": lambda w: fsb.leave_one_out_distances(w.bank, 9),
    "logistic_head": lambda w: fsb.logistic_head(w.bank.features, w.train_labels, 3),
    "map_rows": lambda w: list(fsb.map_rows(fsb.guaranteed_balls, w.head, w.z, batch_size=3)),
    "nearest_hulls": lambda w: fsb.nearest_hulls(w.bank, w.far),
    "normal_angles": lambda w: fsb.normal_angles(w.head, 0),
    "partition": lambda w: fsb.partition(w.head, w.box),
    "region_distances": lambda w: fsb.region_distances(w.head, w.z),
    "region_faces": lambda w: fsb.region_faces(w.head, 0, w.box),
    "region_fractions": lambda w: fsb.region_fractions(w.head, w.box, samples=999),
    "tie_points": lambda w: fsb.tie_points(w.head, w.z, torch.tensor([[0, 1, 2]] * 4)),
    "two_class_head": lambda w: (
        fsb.two_class_head(
            nn.Linear(6, 1, device="meta", dtype=torch.float32).to_empty(device="cpu")
        ).weight.shape
    ),
    "LinearHead": lambda w: vars(fsb.LinearHead(w.z[:3], w.z[0, :3])) and None,
    "LinearHead.from_torch": lambda w: fsb.LinearHead.from_torch(w.model[3]).fingerprint,
    "MultiLabelHead": lambda w: fsb.MultiLabelHead(w.z[:3], w.z[0, :3]).fingerprint,
    "FeatureBank": lambda w: fsb.FeatureBank(w.z, w.labels),
    "FeatureBank.append": lambda w: w.bank.append(w.z, w.labels),
    "FeatureBank.merge": lambda w: fsb.FeatureBank.merge([w.bank, w.bank], dtype=torch.float16),
    "FeatureBank.from_npy": lambda w: fsb.FeatureBank.from_npy(
        w.z.detach().cpu().numpy(), w.labels
    ),
    "FeatureBank.price": lambda w: w.bank.price(w.far, 3),
    "FeatureBank.take": lambda w: w.bank.take(w.labels),
    "FeatureBank.moments": lambda w: w.bank.moments(),
    "FeatureBank.range": lambda w: w.bank.range(),
    "FeatureBank.digests": lambda w: w.bank.digests(),
    "FeatureBank.subset": lambda w: w.bank.subset(labels=[0, 2]),
    "FeatureBank.select": lambda w: w.bank.select(w.labels),
    "FeatureSpace.extract": lambda w: fsb.FeatureSpace(w.model).extract(w.images),
    "FeatureSpace.extract no images": lambda w: w.space.extract(w.images[:0]),
    "FeatureSpace.features": lambda w: w.space.features(w.images).detach(),
    "FeatureSpace.logits": lambda w: w.space.logits(w.images).detach(),
    "FeatureSpace.bank": lambda w: w.space.bank([(w.images, w.labels)]),
    "amplification": lambda w: pixels.amplification(
        w.space, w.images, radius=0.5, directions=3, max_steps=3, flips=w.flips.images
    ),
    "vulnerability_by_class": lambda w: pixels.vulnerability_by_class(
        pixels.amplification(w.space, w.images, radius=0.5, directions=3, max_steps=3)
    ),
    "certify": lambda w: pixels.certify(
        w.space, w.images, upper=w.flips, tolerance=0.05, max_steps=9
    ),
    "certify interval": lambda w: pixels.certify(
        w.space, w.images, norm="l2", method="interval", upper=w.flips, max_steps=5
    ),
    "certify lipschitz": lambda w: pixels.certify(w.space, w.images, upper=w.flips, lipschitz=1e3),
    "check_accuracy": lambda w: pixels.check_accuracy(w.model, w.train, _classes(w)),
    "crossed_images": lambda w: pixels.crossed_images(w.model, w.flips, margin=0.01),
    "film_strip": lambda w: np.asarray(pixels.film_strip(w.images)).copy(),
    "flip_images": _images("feature_guided"),
    "flip_images ddn": _images("ddn"),
    "flip_images line_search": _images("line_search"),
    "inverse_images": lambda w: pixels.inverse_images(w.space, w.z, (2, 1, 4, 4), max_steps=4),
    "morph": lambda w: pixels.morph(w.space, w.images[:1], w.images[1:2], steps=3, max_steps=4),
    "segment_classes": lambda w: pixels.segment_classes(w.space, w.images, w.images.flip(0)),
    "smoothed": lambda w: pixels.smoothed(
        w.space, w.images, sigma=0.1, samples=40, selection_samples=10, alpha=0.05
    ),
    "smoothed_distances": lambda w: pixels.smoothed_distances(
        attr.BoundaryDistance(w.space), w.images, sigma=0.1, radius=0.02, samples=40, alpha=0.05
    ),
    "two_spaces": lambda w: analysis.two_spaces(
        w.space,
        w.images,
        w.batch.predicted,
        w.train[:9],
        w.train_labels[:9],
        flips=2,
        pairs=3,
        points=3,
    ).to_dict(),
    **{name: _value(make) for name, make in DISTANCES.items()},
    **{f"{name} gradient": _gradient(make) for name, make in DISTANCES.items()},
    "BoundaryDirection": lambda w: attr.BoundaryDirection(w.space).attribute(w.images),
    "FlipImageAttribution": lambda w: attr.FlipImageAttribution(
        w.space, finder=lambda images, target: w.flips.images
    ).attribute(w.images, perturbations_per_eval=4),
    "LayerBoundaryDirection": lambda w: attr.LayerBoundaryDirection(w.space, w.model[1]).attribute(
        w.images
    ),
    "HullInfluence": lambda w: attr.HullInfluence(w.space, w.bank).influence(w.images),
    "HullClassifier": lambda w: attr.HullClassifier().train_and_eval(
        [(torch.cat([w.z, w.z + 9.0]), torch.arange(8) // 4)]
    ),
    "BoundaryPush": lambda w: attr.BoundaryPush(w.space, steps=2).perturb(w.images, 0.1),
    "novelty": lambda w: scores.novelty(w.reference, w.far),
    "trust": lambda w: scores.trust(w.reference, w.far),
    "label_issues": lambda w: scores.label_issues(w.reference, w.far, w.labels),
    "pixel_margin": lambda w: scores.pixel_margin(w.space, w.images),
    "estimate_accuracy": lambda w: scores.estimate_accuracy(w.reference, w.far),
    "drift": lambda w: scores.drift(w.reference, w.far),
    "compare_models": lambda w: fsb.compare_models({"a": w.space}, w.images, w.labels),
    "triage": lambda w: list(fsb.triage(w.space, [(w.images, w.labels)], w.reference)),
    "attribute_methods": lambda w: attr.attribute_methods(
        w.space, w.images, {"saliency": Saliency}
    ),
    "compare": lambda w: attr.compare(
        w.images,
        {"boundary": w.images, "other": w.images.flip(0)},
        space=w.space,
        flips=w.flips,
        steps=3,
        resamples=9,
    ),
    "compare_methods": lambda w: attr.compare_methods(
        w.space,
        w.images,
        {"boundary": Saliency, "other": Saliency},
        metrics=("cosine",),
        flips=w.flips,
        steps=3,
        resamples=9,
    ),
}

NO_COMPUTATION = {
    "draw_attributions": "draws; computes nothing",
    "export_certificates": "writes what other functions return",
    "write_verifier": "copies a file",
    "write_gif": "writes what film_strip returns",
    "Supports": "a result",
}


def _classes(w: SimpleNamespace) -> Tensor:
    return w.space.extract(w.train).predicted


def parts(value: Any, name: str = "answer") -> Iterator[tuple[str, Any]]:
    """Yield the numbers and tensors of an answer, with their paths."""
    # these hand out copies, which are those of the mode in which they are read
    if isinstance(value, fsb.FeatureBank):
        value = {"features": value.features, "labels": value.labels}
    elif isinstance(value, fsb.LinearHead):
        value = {"weight": value.weight, "bias": value.bias}
    elif isinstance(value, fsb.GuaranteedHulls):
        value = {"clearance": value.clearance, "generators": value.generators}
    if dataclasses.is_dataclass(value) and not isinstance(value, type):
        value = {f.name: getattr(value, f.name) for f in dataclasses.fields(value)}
    if isinstance(value, Mapping):
        for key, one in value.items():
            yield from parts(one, f"{name}.{key}")
    elif isinstance(value, list | tuple):
        for index, one in enumerate(value):
            yield from parts(one, f"{name}[{index}]")
    elif isinstance(value, np.ndarray):
        yield name, torch.from_numpy(value)
    elif isinstance(value, Tensor | float | int | str | None):
        yield name, value


def require_same(got: Any, wanted: Any, rtol: float) -> None:
    one, other = dict(parts(got)), dict(parts(wanted))
    assert one.keys() == other.keys()
    for name, want in other.items():
        have = one[name]
        if isinstance(want, Tensor):
            assert not have.is_inference(), f"{name} cannot be used outside of the mode"
            assert not have.requires_grad, f"{name} keeps a graph"
            assert have.dtype == want.dtype, name
        if isinstance(want, Tensor) and want.is_floating_point():
            torch.testing.assert_close(
                have,
                want,
                rtol=rtol,
                atol=rtol,
                equal_nan=True,
                msg=f"{name}: {have} is not {want}",
            )
        elif isinstance(want, Tensor):
            assert torch.equal(have, want), name
        elif isinstance(want, float):
            assert have == pytest.approx(want, rel=rtol, abs=rtol, nan_ok=True), name
        else:
            assert have == want, name
