"""Smoothed classifiers: closed forms of linear ones, independence of batches, resuming, errors."""

from __future__ import annotations

import json
import math
from pathlib import Path

import pytest
import torch
from torch import Tensor, nn

import fsboundary as fsb
from fsboundary import ArgumentError, DataError, Status, pixels
from fsboundary.regions.journal import signed_line
from support.pixels.models import kinked, pictures


def half_space(normal: Tensor, offset: float) -> nn.Module:
    """Return a model of two classes, the first where ``normal.x + offset > 0``."""
    model = nn.Sequential(nn.Flatten(), nn.Linear(len(normal), 2)).double().eval()
    with torch.no_grad():
        model[1].weight.copy_(torch.stack([normal, -normal]))
        model[1].bias.copy_(torch.tensor([offset, -offset]))
    return model


NORMAL = torch.tensor([1.0, -2.0, 0.5, 1.0], dtype=torch.float64)
OFFSET = 0.2
LINEAR = half_space(NORMAL, OFFSET)


def linear_images(rows: int, seed: int = 0) -> Tensor:
    g = torch.Generator().manual_seed(seed)
    return torch.rand(rows, 1, 2, 2, generator=g, dtype=torch.float64)


def signed_distance(images: Tensor) -> Tensor:
    """Return the distance from the boundary (B,), positive in the first class."""
    return (images.flatten(1) @ NORMAL + OFFSET) / NORMAL.norm()


def test_radii_of_a_linear_classifier_are_below_the_exact_ones_as_often_as_promised() -> None:
    # the smoothed half-space is the half-space: the exact radius is the distance from its boundary
    images, sigma, alpha, samples = linear_images(250), 0.3, 0.05, 500
    found = pixels.smoothed(
        LINEAR, images, sigma=sigma, samples=samples, alpha=alpha, batch_size=samples
    )
    exact = signed_distance(images)
    wrong = found.ok & (
        (found.smoothed_class != (exact < 0)) | (found.smoothed_radius > exact.abs())
    )
    rows = len(images)
    # four standard deviations of a frequency
    assert float(wrong.double().mean()) <= alpha + 4 * math.sqrt(alpha / rows)
    assert int(wrong.sum()) > 0, "the bound is far too careful"
    clear = exact.abs() > 0.1 * sigma + 4 * sigma * samples**-0.5
    assert bool(found.ok[clear].all())
    nothing = ~found.ok
    assert bool((found.status[nothing] == Status.UNDECIDED).all())
    assert bool((found.smoothed_class[nothing] == -1).all())
    assert bool(found.smoothed_radius[nothing].isnan().all())
    assert bool((found.probability[nothing] <= 0.5).all())
    assert torch.equal(found.model_class, (exact < 0).long())


def test_radii_approach_the_exact_ones() -> None:
    images = linear_images(20, seed=3)
    exact, sigma = signed_distance(images).abs(), 0.4
    near = exact < 2 * sigma  # farther, no number of samples here tells the probability from 1
    for samples, share in ((200, 0.5), (20_000, 0.93)):
        found = pixels.smoothed(LINEAR, images, sigma=sigma, samples=samples, batch_size=4096)
        ratio = (found.smoothed_radius / exact)[near & found.ok]
        assert float(ratio.median()) > share
        assert float(ratio.amax()) < 1


def test_radius_is_limited_by_the_number_of_samples() -> None:
    images = linear_images(6)
    images = images[signed_distance(images).abs() > 0.01]
    found = pixels.smoothed(LINEAR, images, sigma=1e-3)
    highest = 1e-3 * torch.special.ndtri(torch.tensor(1e-3, dtype=torch.float64) ** 1e-3)
    # the billionth by which probabilities are lowered is 2e-8 of this radius
    torch.testing.assert_close(
        found.smoothed_radius, highest.expand(len(images)), rtol=1e-7, atol=0
    )


@pytest.mark.parametrize("dtype", [torch.float64, torch.float32, torch.float16])
def test_rows_depend_on_no_other_row_and_on_no_batch(dtype: torch.dtype) -> None:
    model = fsb.FeatureSpace(kinked().to(dtype), example=torch.rand(1, 1, 1, 2, dtype=dtype))
    images = pictures(5, 1, 1, 2).to(dtype)
    images[1] = torch.nan
    options = {"sigma": 0.2, "samples": 60, "selection_samples": 10}
    full = pixels.smoothed(model, images, **options)
    assert full.status[1] == Status.NOT_FINITE
    assert full.smoothed_radius[1].isnan()
    assert full.probability[1].isnan()
    assert full.selected[1] == full.model_class[1] == full.smoothed_class[1] == -1
    for batch_size in (1, 7, 60):
        other = pixels.smoothed(model, images, batch_size=batch_size, **options)
        torch.testing.assert_close(other.hits, full.hits, rtol=0, atol=0)
    for row in range(5):
        alone = pixels.smoothed(model, images[row : row + 1], **options)
        for name, value in alone.to_dict().items():
            torch.testing.assert_close(
                value, getattr(full, name)[row : row + 1], rtol=0, atol=0, equal_nan=True
            )
    again = pixels.smoothed(model, images, seed=1, **options)
    assert not torch.equal(again.hits, full.hits)


def test_no_rows_and_the_global_generator() -> None:
    state = torch.get_rng_state()
    space = fsb.FeatureSpace(LINEAR, example=linear_images(1))
    assert space.head.num_classes == 2  # an empty batch does not show the head
    assert len(pixels.smoothed(space, linear_images(0), sigma=0.1).smoothed_radius) == 0
    pixels.smoothed(LINEAR, linear_images(2), sigma=0.1, samples=5)
    assert torch.equal(state, torch.get_rng_state())


class Fragile(nn.Module):
    """A linear classifier that gives NaN for images with a negative pixel."""

    def __init__(self) -> None:
        super().__init__()
        self.inner = LINEAR

    def forward(self, x: Tensor) -> Tensor:
        out: Tensor = self.inner(x.masked_fill(x < 0, torch.nan))
        return out


def test_noisy_images_without_a_class_count_for_none() -> None:
    images = torch.full((1, 1, 2, 2), 0.5, dtype=torch.float64)
    images[0, 0, 0, 1] = 0.0  # half of its copies have a negative pixel there
    found = pixels.smoothed(Fragile().eval(), images, sigma=1e-3, samples=400)
    assert 100 < int(found.hits) < 300
    assert found.status[0] == Status.UNDECIDED


def test_a_stopped_run_resumes_and_other_runs_are_refused(tmp_path: Path) -> None:
    file, images = tmp_path / "new" / "counts.jsonl", linear_images(4)
    calls: list[int] = []

    class Counted(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.inner = half_space(NORMAL, OFFSET)

        def forward(self, x: Tensor) -> Tensor:
            calls.append(len(x))  # the search for the head passes single images
            out: Tensor = self.inner(x)
            return out

    model = Counted().eval()
    options = {"sigma": 0.3, "samples": 50, "selection_samples": 20}
    right = pixels.smoothed(model, images, **options)
    pixels.smoothed(model, images[:3], resume=file, **options)
    with file.open("ab") as stream:
        stream.write(b'{"image": "unfini')
    calls.clear()
    found = pixels.smoothed(model, images, resume=file, alpha=0.01, **options)
    assert [n for n in calls if n > 1] == [4, 20, 50], "only the last image is counted"
    assert torch.equal(found.hits, right.hits)
    assert torch.equal(found.selected, right.selected)
    calls.clear()
    pixels.smoothed(model, images, resume=file, **options)
    assert [n for n in calls if n > 1] == [4]
    for change in ({"sigma": 0.2}, {"samples": 51}, {"seed": 5}, {"selection_samples": 19}):
        with pytest.raises(ArgumentError, match="resume"):
            pixels.smoothed(model, images, resume=file, **options | change)
    with torch.no_grad():
        model.inner[1].bias += 0.1
    with pytest.raises(ArgumentError, match="another model"):
        pixels.smoothed(model, images, resume=file, **options)
    with torch.no_grad():
        model.inner[1].bias -= 0.1
    other = fsb.FeatureSpace(model, preprocess=lambda x: x * 0.5)
    with pytest.raises(ArgumentError, match=r"preprocess= included|another model"):
        pixels.smoothed(other, images, resume=file, **options)


@pytest.mark.parametrize("place", ["line", "counts"])
def test_damaged_journals_are_refused(tmp_path: Path, place: str) -> None:
    file, images = tmp_path / "counts.jsonl", linear_images(3)
    options = {"sigma": 0.3, "samples": 20, "selection_samples": 5, "resume": file}
    pixels.smoothed(LINEAR, images, **options)
    lines = file.read_bytes().splitlines(keepends=True)
    old = b'"hits": ' if place == "counts" else b'"image": "'
    lines[1] = lines[1].replace(old, old + b"1")
    file.write_bytes(b"".join(lines))
    with pytest.raises(DataError, match="line 2 is damaged"):
        pixels.smoothed(LINEAR, images, **options)
    file.write_text("a note\n")
    with pytest.raises(ArgumentError, match="something else"):
        pixels.smoothed(LINEAR, images, **options)
    with pytest.raises(ArgumentError, match="something else"):
        pixels.smoothed(LINEAR, images, **options | {"resume": tmp_path})


class Stopped(Exception):
    """The end of a run, in the middle."""


class Margins(nn.Module):
    """Values of images, which stop after a number of passes."""

    def __init__(self) -> None:
        super().__init__()
        self.inner = half_space(NORMAL, OFFSET)
        self.passes, self.stop = 0, math.inf

    def forward(self, x: Tensor) -> Tensor:
        self.passes += len(x) > 1
        if self.passes > self.stop:
            raise Stopped
        values = self.inner(x)
        # one without a value, one without a limit
        return torch.cat([values, values[:, :1] * math.nan, values[:, :1] + math.inf], dim=1)


DISTANCES = {"sigma": 0.3, "radius": 0.1, "samples": 60, "alpha": 0.01, "batch_size": 20}


def assert_same_limits(found: fsb.SmoothedDistances, want: fsb.SmoothedDistances) -> None:
    for name in ("lower", "median", "upper", "undefined", "status", "radius"):
        torch.testing.assert_close(
            getattr(found, name), getattr(want, name), rtol=0, atol=0, equal_nan=True
        )


def test_limits_of_a_stopped_run_resume_to_the_same(tmp_path: Path) -> None:
    module, file, images = Margins().eval(), tmp_path / "new" / "limits.jsonl", linear_images(4)
    images[1, 0, 0, 0] = math.nan
    want = pixels.smoothed_distances(module, images, **DISTANCES)
    module.passes, module.stop = 0, 4  # in the second of three usable images
    with pytest.raises(Stopped):
        pixels.smoothed_distances(module, images, resume=file, **DISTANCES)
    assert len(file.read_bytes().splitlines()) == 2
    module.passes, module.stop = 0, math.inf
    assert_same_limits(pixels.smoothed_distances(module, images, resume=file, **DISTANCES), want)
    assert module.passes == 6, "the first image is not computed again"
    whole = file.read_bytes()
    # killed at any byte
    for size in (0, 1, 40, len(whole) // 3, len(whole) // 2, len(whole) - 1, len(whole)):
        file.write_bytes(whole[:size])
        found = pixels.smoothed_distances(module, images, resume=file, **DISTANCES)
        assert_same_limits(found, want)
        assert file.read_bytes() == whole
    module.passes = 0
    pixels.smoothed_distances(module, images.flip(0), resume=file, **DISTANCES)
    assert module.passes == 0


def test_limits_of_other_runs_are_refused(tmp_path: Path) -> None:
    module, file, images = Margins().eval(), tmp_path / "limits.jsonl", linear_images(2)
    want = pixels.smoothed_distances(module, images, resume=file, **DISTANCES)
    for change in ({"sigma": 0.2}, {"radius": 0.2}, {"samples": 61}, {"seed": 5}, {"alpha": 0.1}):
        with pytest.raises(ArgumentError, match="other options"):
            pixels.smoothed_distances(module, images, resume=file, **DISTANCES | change)
    # a limit that was exchanged, with a sum that matches
    lines = file.read_bytes().splitlines()
    fields = json.loads(lines[1])
    fields.pop("digest")
    fields["lower"], fields["upper"] = fields["upper"], fields["lower"]
    file.write_bytes(lines[0] + b"\n" + signed_line(fields) + lines[2] + b"\n")
    with pytest.raises(DataError, match=r"line 2 is damaged \(its limits do not belong"):
        pixels.smoothed_distances(module, images, resume=file, **DISTANCES)
    with torch.no_grad():
        module.inner[1].bias += 0.1
    with pytest.raises(ArgumentError, match="another model"):
        pixels.smoothed_distances(module, images, resume=file, **DISTANCES)
    plain = tmp_path / "function.jsonl"  # recognised by its values
    pixels.smoothed_distances(LINEAR.forward, images, resume=plain, **DISTANCES)
    with pytest.raises(ArgumentError, match="largest value"):
        pixels.smoothed_distances(lambda x: LINEAR(x) + 1, images, resume=plain, **DISTANCES)
    wider = pixels.smoothed_distances(
        lambda x: LINEAR(x).repeat(1, 2), images, resume=plain, **DISTANCES
    )
    assert wider.lower.shape == (2, 4)
    counts = tmp_path / "counts.jsonl"
    pixels.smoothed(LINEAR, images, sigma=0.3, samples=20, resume=counts)
    with pytest.raises(ArgumentError, match="something else"):
        pixels.smoothed_distances(LINEAR, images, resume=counts, **DISTANCES)
    assert bool((want.lower[:, :2] < want.upper[:, :2]).all())
    with pytest.raises(ArgumentError, match="resume"):
        pixels.smoothed_distances(module, images, resume=3, **DISTANCES)


BAD = {
    "sigma": ({"sigma": 0.0}, "sigma"),
    "nan": ({"sigma": math.nan}, "sigma"),
    "alpha": ({"alpha": 1.0}, "alpha"),
    "samples": ({"samples": 0}, "samples"),
    "images": ({"images": linear_images(1) + 1}, "bounds"),
    "one image": ({"images": linear_images(1)[0]}, "images"),
    "seed": ({"seed": 0.5}, "seed"),
    "batch": ({"batch_size": 0}, "batch_size"),
}


@pytest.mark.parametrize("case", BAD)
def test_malformed_arguments_raise(case: str) -> None:
    change, name = BAD[case]
    given = {"images": linear_images(1), "sigma": 0.1} | change
    with pytest.raises(ArgumentError, match=name):
        pixels.smoothed(LINEAR, given.pop("images"), **given)
    given = {"images": linear_images(1), "sigma": 0.1, "radius": 0.1} | change
    with pytest.raises(ArgumentError, match=name):
        pixels.smoothed_distances(LINEAR, given.pop("images"), **given)


def test_bad_resume_and_bad_modules_raise() -> None:
    with pytest.raises(ArgumentError, match="resume"):
        pixels.smoothed(LINEAR, linear_images(1), sigma=0.1, resume=3)
    options = {"sigma": 0.1, "radius": 0.1}
    with pytest.raises(ArgumentError, match="module"):
        pixels.smoothed_distances("distance", linear_images(1), **options)
    for wrong in (lambda x: x, lambda x: x.flatten(1)[:1], lambda x: x.flatten(1).long(), len):
        with pytest.raises(ArgumentError, match="module"):
            pixels.smoothed_distances(wrong, linear_images(1), **options)
    with pytest.raises(ArgumentError, match="radius"):
        pixels.smoothed_distances(LINEAR, linear_images(1), sigma=0.1, radius=-1.0)


def test_limits_of_a_linear_function_enclose_its_smoothed_values_as_often_as_promised() -> None:
    # the median of a linear function under noise is the function; within a radius r it changes by
    # up to r times the length of its normal
    images, sigma, radius, alpha = linear_images(300), 0.2, 0.1, 0.1
    found = pixels.smoothed_distances(
        lambda x: signed_distance(x)[:, None].expand(-1, 1),
        images, sigma=sigma, radius=radius, samples=400, alpha=alpha,
    )  # fmt: skip
    exact = signed_distance(images)[:, None]
    failed = (found.lower > exact - radius) | (found.upper < exact + radius)
    assert float(failed.double().mean()) <= alpha + 4 * math.sqrt(alpha / len(images))
    assert int(failed.sum()) > 0, "the limits are far too careful"
    assert bool(found.ok.all())
    # a few standard errors of a quantile wide
    assert float((exact - radius - found.lower).amax()) < 6 * sigma * 400**-0.5
    torch.testing.assert_close(found.median, exact, rtol=0, atol=6 * sigma * 400**-0.5)


def test_limits_of_distances_hold_at_images_within_the_radius() -> None:
    space = fsb.FeatureSpace(kinked())
    distance, images = fsb.attr.BoundaryDistance(space), pictures(3, 1, 1, 2)
    options = {"sigma": 0.1, "samples": 150}
    found = pixels.smoothed_distances(distance, images, radius=0.08, **options)
    assert found.lower.shape == (3, space.head.num_classes)
    for seed in range(3):
        step = torch.randn(images.shape, generator=torch.Generator().manual_seed(seed))
        moved = (images + 0.079 * step / step.flatten(1).norm(dim=1)[:, None, None, None]).clamp(
            0, 1
        )
        there = pixels.smoothed_distances(distance, moved, radius=0.0, **options)
        assert bool((found.lower <= there.upper).all() and (there.lower <= found.upper).all())


def test_limits_of_rows_alone_and_of_rows_that_are_not_finite() -> None:
    images = linear_images(3)
    images[0, 0, 0, 0] = torch.inf
    options = {"sigma": 0.1, "radius": 0.02, "samples": 50, "alpha": 0.01}
    full = pixels.smoothed_distances(LINEAR, images, **options)
    assert bool((full.status[0] == Status.NOT_FINITE).all())
    assert bool(full.lower[0].isnan().all() and full.upper[0].isnan().all())
    alone = pixels.smoothed_distances(LINEAR, images[2:], batch_size=9, **options)
    torch.testing.assert_close(alone.lower, full.lower[2:], rtol=1e-12, atol=0)
    none = pixels.smoothed_distances(LINEAR, images[:1], **options)
    assert none.lower.shape == (1, 2)
    assert bool(none.lower.isnan().all())
    assert pixels.smoothed_distances(LINEAR, images[:0], **options).upper.shape == (0, 2)


def test_values_that_are_missing_lie_on_the_side_that_proves_less() -> None:
    images = torch.full((1, 1, 2, 2), 0.5, dtype=torch.float64)
    images[0, 0, 0, 1] = 0.0
    options = {"sigma": 1e-3, "radius": 1e-4, "samples": 200}
    found = pixels.smoothed_distances(Fragile().eval(), images, **options)
    assert bool((found.undefined > 50).all())
    assert bool((found.status == Status.UNDECIDED).all())
    assert bool((found.lower == -torch.inf).all() and (found.upper == torch.inf).all())
    few = pixels.smoothed_distances(LINEAR, images, sigma=1e-3, radius=1.0, samples=3)
    assert bool((few.status == Status.UNDECIDED).all())
