"""Certified radii in pixels: closed forms, a fine grid, and what is reported of other rows."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, nn

import fsboundary as fsb
from fsboundary import pixels
from fsboundary.builtin.body_bounds.linear_bounds import LinearBounds
from fsboundary.core.errors import (
    ArgumentError,
    DataError,
    HeadError,
    PluginError,
    PluginWarning,
)
from fsboundary.core.status import Status
from fsboundary.pixels.certification.certified_radii import margins
from fsboundary.regions.journal import parse_line, signed_line
from support.bounds.bodies import Lowered
from support.pixels.models import Linear, kinked, pictures


@pytest.mark.parametrize("norm", ["linf", "l2"])
def test_linear_bodies_have_the_closed_form(norm: str) -> None:
    model, images = Linear(), pictures(12, 1, 4, 4)
    exact = fsb.guaranteed_balls(model.composed(), images.flatten(1), norm)
    found = pixels.certify(model, images, norm=norm, tolerance=1e-10)
    assert bool((found.status == Status.CONVERGED).all())
    assert torch.equal(found.limit, exact.active_class)
    assert torch.equal(found.source, exact.source)
    # the search ends at 1e-10; the ball's own bound is lowered by its rounding
    torch.testing.assert_close(found.radius, exact.radius, rtol=1e-9, atol=0)
    assert bool((found.radius <= exact.radius * (1 + 1e-12)).all())


def grid_radius(model: nn.Module, image: Tensor, norm: str) -> float:
    """Return the distance of the nearest of 400 x 400 points of another class."""
    t = torch.linspace(0, 1, 400, dtype=torch.float64)
    points = torch.cartesian_prod(t, t).reshape(-1, 1, 1, 2)
    same = model(points).argmax(1) == model(image[None]).argmax(1)
    order = 2 if norm == "l2" else torch.inf
    away = torch.linalg.vector_norm((points - image).flatten(1), ord=order, dim=1)
    return float(away[~same].min())


@pytest.mark.parametrize("method", ["linear_bounds", "interval"])
@pytest.mark.parametrize("norm", ["linf", "l2"])
def test_two_pixels_against_a_fine_grid(norm: str, method: str) -> None:
    model, images = kinked(), pictures(8, 1, 1, 2)
    found = pixels.certify(model, images, norm=norm, method=method)
    exact = torch.tensor([grid_radius(model, image, norm) for image in images])
    # the grid overestimates by at most its step
    assert bool((found.radius <= exact).all())
    assert bool((found.radius > 0).all())
    assert bool((found.radius <= found.upper).all())
    if method == "linear_bounds":
        assert float((found.radius / exact).median()) > 0.5


def test_rows_of_every_status() -> None:
    model, images = kinked(), pictures(3, 1, 1, 2)
    images[1] = torch.nan
    found = pixels.certify(model, images)
    assert found.status.tolist() == [0, int(Status.NOT_FINITE), 0]
    assert found.source[1] == -1
    assert bool(found.radius[1].isnan())
    assert bool(found.upper[1].isnan())
    alone = pixels.certify(model, images[[0, 2]])
    torch.testing.assert_close(found.radius[[0, 2]], alone.radius)
    with torch.no_grad():
        model[3].bias[0] += 1e3  # one class everywhere
    whole = pixels.certify(model, images[:1])
    assert whole.status.tolist() == [int(Status.UNBOUNDED)]
    assert whole.radius.tolist() == [torch.inf] == whole.upper.tolist()
    assert whole.limit.tolist() == [-1]
    with torch.no_grad():
        model[3].weight.zero_()
        model[3].bias.zero_()  # all classes tie
    tied = pixels.certify(model, images[:1], upper=images[:1])
    assert tied.status.tolist() == [int(Status.UNDECIDED)]
    assert tied.radius.tolist() == [0.0]
    space = fsb.FeatureSpace(model)
    space.extract(images[:1])
    assert len(pixels.certify(space, images[:0]).radius) == 0


def test_stopped_searches_have_valid_radii() -> None:
    model, images = kinked(), pictures(6, 1, 1, 2)
    full = pixels.certify(model, images)
    for steps in (1, 3, 5):
        found = pixels.certify(model, images, max_steps=steps)
        assert bool((found.radius <= full.radius * (1 + 2e-3)).all())
        assert bool((found.steps <= steps).all())
        allowed = [int(s) for s in (Status.CONVERGED, Status.MAX_STEPS, Status.UNDECIDED)]
        assert set(found.status.tolist()) <= set(allowed)
    assert bool((pixels.certify(model, images, max_steps=1).radius == 0).all())


def test_pixels_are_those_before_preprocessing() -> None:
    model, images = Linear(), pictures(4, 1, 4, 4)
    half = fsb.FeatureSpace(model, preprocess=lambda x: x / 255)
    found = pixels.certify(half, 255 * images, bounds=(0, 255), tolerance=1e-8)
    plain = pixels.certify(model, images, tolerance=1e-8)
    torch.testing.assert_close(found.radius, 255 * plain.radius, rtol=1e-7, atol=0)


def test_a_method_that_is_proved_wrong_is_named_and_its_answer_withdrawn() -> None:
    model, images = Linear(), pictures(4, 1, 4, 4)
    # the margin at the image: certifies everything
    liar = Lowered(LinearBounds(), lambda lower, radius: torch.full_like(lower, 1e-3))
    with pytest.warns(PluginWarning, match=r"body bounds Lowered was proved wrong.*4 rows"):
        found = pixels.certify(model, images, method=liar)
    assert bool((found.status == Status.INACCURATE).all())
    assert bool(found.radius.isnan().all())
    # bounds that are honest up to a tenth of the radius at which they are wrong
    shrunk = Lowered(LinearBounds(), lambda lower, radius: lower + 20 * radius[:, None])
    with pytest.warns(PluginWarning, match="Lowered"):
        found = pixels.certify(model, images, method=shrunk)
    assert bool((found.status == Status.INACCURATE).all())


def test_answers_of_other_shapes_are_errors() -> None:
    model, images = Linear(), pictures(2, 1, 4, 4)
    for change in (
        lambda lower, radius: lower[:, :1],
        lambda lower, radius: lower.long(),
        lambda lower, radius: lower.tolist(),
    ):
        with pytest.raises(PluginError, match="body bounds Lowered"):
            pixels.certify(model, images, method=Lowered(LinearBounds(), change))
    nothing = Lowered(LinearBounds(), lambda lower, radius: lower * torch.nan)
    found = pixels.certify(model, images, method=nothing)
    assert found.radius.tolist() == [0.0, 0.0]
    assert found.status.tolist() == 2 * [int(Status.UNDECIDED)]


class Orthogonal(nn.Module):
    """A 1-Lipschitz body: an orthogonal map, and the absolute value."""

    def __init__(self) -> None:
        super().__init__()
        g = torch.Generator().manual_seed(0)
        q = torch.linalg.qr(torch.randn(16, 16, generator=g, dtype=torch.float64))[0]
        self.q = nn.Parameter(q, requires_grad=False)
        self.head = nn.Linear(16, 4).double().requires_grad_(False)
        self.head.weight.copy_(torch.randn(4, 16, generator=g, dtype=torch.float64))

    def forward(self, x: Tensor) -> Tensor:
        return self.head(torch.abs(x.flatten(1) @ self.q))


def test_lipschitz_bodies_have_the_radius_of_the_ball() -> None:
    model, images = Orthogonal().eval(), pictures(6, 1, 4, 4)
    space = fsb.FeatureSpace(model)
    found = pixels.certify(space, images, norm="l2", lipschitz=1.0)
    balls = fsb.guaranteed_balls(space.head, space.extract(images).features)
    torch.testing.assert_close(found.radius, balls.radius, rtol=1e-12, atol=0)
    assert torch.equal(found.limit, balls.active_class)
    assert bool((found.radius <= found.upper).all())
    half = pixels.certify(space, images, norm="l2", lipschitz=2.0)
    torch.testing.assert_close(half.radius, balls.radius / 2, rtol=1e-12, atol=0)
    with pytest.raises(ArgumentError, match=r"lipschitz: got 0\.1; wanted at least"):
        pixels.certify(space, images, norm="l2", lipschitz=0.1)
    with pytest.raises(ArgumentError, match="lipschitz"):
        pixels.certify(space, images, norm="linf", lipschitz=1.0)


def test_bad_arguments_raise_before_any_work() -> None:
    model, images = kinked(), pictures(2, 1, 1, 2)
    cases: dict[str, dict] = {
        "norm": {"norm": "l1"},
        "bounds": {"bounds": (1, 0)},
        "images": {"images": images + 2},
        "tolerance": {"tolerance": 0.0},
        "max_steps": {"max_steps": 0},
        "batch_size": {"batch_size": 0},
        "lipschitz": {"lipschitz": -1.0},
        "upper": {"upper": images[:1]},
        "body_bound": {"method": "nothing"},
    }
    for name, change in cases.items():
        given = {"images": images} | change
        with pytest.raises(ArgumentError, match=name):
            pixels.certify(model, given.pop("images"), **given)


def test_operations_without_a_rule_are_named() -> None:
    layers = nn.Flatten(), nn.Linear(2, 4), nn.Softmax(1), nn.Linear(4, 3)
    model = nn.Sequential(*layers).double().eval()
    with pytest.raises(HeadError, match="'_softmax' has no rule"):
        pixels.certify(model, pictures(2, 1, 1, 2))


def test_differences_of_weights_that_are_rounded_are_covered() -> None:
    head = fsb.LinearHead(
        torch.tensor([[1.0, 0.1], [1e-17, 3.0]], dtype=torch.float64), torch.zeros(2)
    )
    found = margins(head, torch.tensor([0]), torch.tensor([[1]]))
    assert found.weight_error[0, 0, 0] == 1e-17
    assert found.weight_error[0, 0, 1] > 0


class FittedHead(fsb.FeatureExtractor):
    surrogate = True

    def features(self, model: nn.Module, inputs: Tensor, *additional: object, **keywords: object):
        return inputs.flatten(1), model(inputs)

    def head(self, model: nn.Module) -> fsb.LinearHead:
        return fsb.LinearHead(torch.ones(3, 2), torch.zeros(3))


def test_fitted_heads_are_refused_because_the_model_may_differ() -> None:
    space = fsb.FeatureSpace(kinked(), extractor=FittedHead())
    with pytest.raises(ArgumentError, match="model: got a FeatureSpace with a fitted head"):
        pixels.certify(space, pictures(2, 1, 1, 2))


class Stopping(nn.Module):
    """A model that stops after a number of passes of several images."""

    def __init__(self) -> None:
        super().__init__()
        self.inner, self.passes, self.stop = kinked(), 0, float("inf")

    def forward(self, x: Tensor) -> Tensor:
        self.passes += 1
        if self.passes > self.stop:
            raise KeyboardInterrupt
        out: Tensor = self.inner(x)
        return out


@pytest.mark.parametrize("given", [False, True])
def test_a_stopped_run_resumes_to_the_same_radii(tmp_path: Path, given: bool) -> None:
    model, file, images = Stopping().eval(), tmp_path / "new" / "radii.jsonl", pictures(5, 1, 1, 2)
    images[2] = torch.nan
    options = {"batch_size": 2, "upper": 1 - images if given else None}
    want = pixels.certify(model, images, **options)
    whole_run, model.passes = model.passes, 0
    model.stop = whole_run - 2  # in the last batch
    with pytest.raises(KeyboardInterrupt):
        pixels.certify(model, images, resume=file, **options)
    assert len(file.read_bytes().splitlines()) == 3
    model.passes, model.stop = 0, float("inf")

    def same(found: fsb.CertifiedPixels) -> bool:
        # flip images that are looked for in another batch differ in the last digits, so the class
        # changes there or 1e-4 beyond, and searches that begin there end within the tolerance
        rtol = dict.fromkeys(("radius", "upper"), 0.0 if given else 1e-3)
        return all(
            torch.allclose(
                getattr(found, n), getattr(want, n), rtol=rtol.get(n, 0.0), atol=0, equal_nan=True
            )
            for n in ("radius", "upper", "source", "limit", "status")
        )

    assert same(pixels.certify(model, images, resume=file, **options))
    assert model.passes < 0.7 * whole_run
    whole = file.read_bytes()
    sizes = (0, 1, 40, len(whole) // 2, len(whole) - 1, len(whole))
    for size in sizes if given else sizes[3:4]:  # looking for flip images takes long
        file.write_bytes(whole[:size])
        assert same(pixels.certify(model, images, resume=file, **options))
        assert len(file.read_bytes().splitlines()) == 5
        assert not given or file.read_bytes() == whole
    for change in ({"norm": "l2"}, {"bounds": (-1, 1)}, {"tolerance": 0.1}, {"max_steps": 3},
                   {"method": "interval"}, {"lipschitz": 9.0},
                   {"arithmetic": "floating_point"}):  # fmt: skip
        with pytest.raises(ArgumentError, match="other options"):
            pixels.certify(model, images, resume=file, **options | change)
    with torch.no_grad():
        model.inner[1].bias += 0.1
    with pytest.raises(ArgumentError, match="another model"):
        pixels.certify(model, images, resume=file, **options)


@pytest.mark.parametrize(
    "options", [{}, {"norm": "l2"}, {"arithmetic": "floating_point"}, {"lipschitz": 30.0}]
)
@pytest.mark.parametrize(
    "change", [{"radius": 1.02}, {"radius": "inf"}, {"source": 1}, {"upper": 0.4}]
)
def test_a_radius_in_a_file_is_proved_again(
    tmp_path: Path, options: dict[str, Any], change: dict[str, Any]
) -> None:
    """A file of sound lines, of which one states more than the model allows."""
    model, file, images = Linear(), tmp_path / "radii.jsonl", pictures(3, 1, 4, 4)
    options = options | {"upper": 1 - images, "resume": file}
    want = pixels.certify(model, images, **options)
    lines = file.read_bytes().splitlines(keepends=True)
    fields = parse_line(lines[2])
    for name, value in change.items():
        if name == "source":
            fields[name] = (fields[name] + value) % 3
        elif name == "upper":
            fields[name] = (value * float.fromhex(fields["radius"])).hex()
        else:
            old = float.fromhex(fields["radius"])
            fields[name] = (value * old if isinstance(value, float) else float(value)).hex()
    file.write_bytes(b"".join([*lines[:2], signed_line(fields), *lines[3:]]))
    found = pixels.certify(model, images, **options)
    # float32 features of another batch
    rtol = 1e-6 if "lipschitz" in options else 0.0
    for name in ("radius", "upper", "source", "limit", "status"):
        one, other = getattr(found, name), getattr(want, name)
        torch.testing.assert_close(one, other, rtol=rtol, atol=0.0)


def test_damaged_files_of_radii_are_refused(tmp_path: Path) -> None:
    model, file, images = Linear(), tmp_path / "radii.jsonl", pictures(3, 1, 4, 4)
    options = {"upper": 1 - images, "resume": file}
    pixels.certify(model, images, **options)
    lines = file.read_bytes().splitlines(keepends=True)
    file.write_bytes(lines[0] + lines[1].replace(b'"0x1.', b'"0x2.', 1) + b"".join(lines[2:]))
    with pytest.raises(DataError, match="line 2 is damaged"):
        pixels.certify(model, images, **options)
    fields = parse_line(lines[1]) | {"radius": "-0x1p-3"}
    file.write_bytes(lines[0] + signed_line(fields) + b"".join(lines[2:]))
    with pytest.raises(DataError, match="line 2 is damaged"):
        pixels.certify(model, images, **options)
    with pytest.raises(ArgumentError, match="resume"):
        pixels.certify(model, images, resume=3)
