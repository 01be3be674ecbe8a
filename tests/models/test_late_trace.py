"""Passes of which only the end is recorded: they show, and refuse, what full traces do."""

from __future__ import annotations

import contextlib
import re
from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import Tensor, nn

import fsboundary as fsb
from fsboundary.models.head_search import passes
from fsboundary.models.head_search.affine_tail import NotAffineError
from fsboundary.models.head_search.graph import UnseenOperationError
from fsboundary.models.head_search.search import HeadSearch
from support.models import handmade_models, transformers_models
from support.models.families import Family, randomize_weights
from support.models.nets import CLASSES, WIDTH, images

FAMILIES = {**transformers_models.FAMILIES, **handmade_models.FAMILIES}


class Ends:
    """How often only the end of a pass was recorded, and how often that sufficed."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.tried = self.sufficient = 0
        trace_end = passes._trace_end

        def count(*args: Any) -> Any:
            found = trace_end(*args)
            self.tried += 1
            self.sufficient += found is not None
            return found

        monkeypatch.setattr(passes, "_trace_end", count)


def results(
    model: nn.Module, *steps: Callable[[fsb.FeatureSpace], Any], output: str | None = None
) -> list[Any]:
    """Return the fields, or the error, of each step of one space."""
    space, found = fsb.FeatureSpace(model, output=output), []
    for step in steps:
        torch.manual_seed(0)
        try:
            answer = step(space)
            if isinstance(answer, fsb.FeatureBatch):
                answer = answer.features, answer.logits, answer.predicted, answer.status
            found.append(answer)
        except (fsb.FsboundaryError, RuntimeError) as error:
            # how much chance changes numbers depends on the number of passes
            text = re.sub(r"[\d.]+(e[+-]\d+)?", "#", str(error))
            found.append(f"{type(error).__name__}: {text}")
    with contextlib.suppress(fsb.FsboundaryError):
        found.append((space.notes()["layer"], space.notes()["features"], space.domain.kind))
    return found


def check_equal(late: list[Any], full: list[Any]) -> None:
    assert len(late) == len(full)
    for one, other in zip(late, full, strict=True):
        if isinstance(one, tuple) and isinstance(one[0], Tensor):
            assert isinstance(other, tuple), other
            assert all(map(torch.equal, one, other))
        else:
            assert one == other


@pytest.mark.parametrize("family", FAMILIES.values(), ids=FAMILIES.keys())
def test_the_end_of_a_pass_shows_what_the_whole_pass_shows(
    family: Family, monkeypatch: pytest.MonkeyPatch
) -> None:
    model = randomize_weights(family.build())
    x = torch.randn(5, *family.shape, generator=torch.Generator().manual_seed(1))
    ends = Ends(monkeypatch)
    steps = [lambda space, n=n: space.extract(x[:n]) for n in (5, 4, 1, 3)]
    steps += [lambda space: (space.features(x), space.logits(x))] * 2
    late = results(model, *steps, output=family.output)
    assert ends.sufficient == ends.tried > 2
    monkeypatch.setattr(passes, "_MISSES", 0)
    tried = ends.tried
    check_equal(late, results(model, *steps, output=family.output))
    assert ends.tried == tried


class Program(nn.Module):
    """A body, a ReLU and a head ``fc``, with a function that may do anything between them.

    Parameters
    ----------
    usual, other : callable
        Functions of this module and the input that return the logits; `other` once
        :attr:`changed` is True.
    """

    changed = False

    def __init__(
        self, usual: Callable[[Any, Tensor], Tensor], other: Callable[[Any, Tensor], Tensor]
    ) -> None:
        super().__init__()
        self.usual, self.other = usual, other
        self.first = nn.Linear(12, WIDTH)
        self.fc = nn.Linear(WIDTH, CLASSES)
        self.skip = nn.Linear(WIDTH, CLASSES)
        self.offset: Tensor
        self.register_buffer("offset", torch.ones(CLASSES))
        self.plain = torch.ones(CLASSES)
        self.calls = 0
        self.alias = self.fc.weight.data  # seen by no mode, because it was made before
        generator = torch.Generator().manual_seed(0)
        with torch.no_grad():
            for p in self.parameters():
                p.copy_(torch.randn(p.shape, generator=generator))
        self.eval()

    def forward(self, x: Tensor) -> Tensor:
        self.calls += 1
        return (self.other if self.changed else self.usual)(self, x)

    def body(self, x: Tensor) -> Tensor:
        h = x.flatten(1)
        for _ in range(3):
            h = h * 1.5 - 0.5
        return self.first(h)


def plain(m: Program, x: Tensor) -> Tensor:
    return m.fc(m.body(x).relu())


def before(change: Callable[[Program, Tensor], object]) -> Callable[[Program, Tensor], Tensor]:
    """Return the plain model with `change` applied to its hidden numbers before their ReLU."""

    def forward(m: Program, x: Tensor) -> Tensor:
        h = m.body(x)
        changed = change(m, h)
        h = changed if isinstance(changed, Tensor) else h
        return m.fc(h.relu())

    return forward


def after(change: Callable[[Program, Tensor], object]) -> Callable[[Program, Tensor], Tensor]:
    """Return the plain model with `change` applied to its features before the head."""

    def forward(m: Program, x: Tensor) -> Tensor:
        z = m.body(x).relu()
        changed = change(m, z)
        return m.fc(changed if isinstance(changed, Tensor) else z)

    return forward


def scaled_rows(m: Program, x: Tensor) -> Tensor:
    h = m.body(x)
    factor = h.mean()
    return nn.functional.linear(h.relu(), m.fc.weight * factor, m.fc.bias)


def early(make: Callable[[Program], Tensor], use: Callable[..., Tensor]) -> Any:
    """Return the plain model with a tensor that is made first and used last."""

    def forward(m: Program, x: Tensor) -> Tensor:
        made = make(m)
        return use(m, m.body(x).relu(), made)

    return forward


def point_to(m: Program, h: Tensor) -> None:
    """Let the buffer share the memory of hidden numbers."""
    m.offset.data = h[0, :CLASSES]


def with_skip(change: Callable[[Tensor], Tensor]) -> Callable[[Program, Tensor], Tensor]:
    def forward(m: Program, x: Tensor) -> Tensor:
        h = change(m.body(x))
        g = h.tanh() if change is torch.clone else h
        return m.fc(h.relu()) + m.skip(g)

    return forward


def late_write(m: Program, x: Tensor) -> Tensor:
    z = m.body(x).relu()
    y = m.fc(z)
    z.mul_(2)
    return y


def write_offset(m: Program, h: Tensor) -> None:
    m.offset.copy_(h[0, :CLASSES].abs())


def through_numpy(m: Program, h: Tensor) -> Tensor:
    return torch.from_numpy(h.detach().numpy())


def plus_offset(m: Program, x: Tensor) -> Tensor:
    return plain(m, x) + m.offset


def in_inference_mode(m: Program, x: Tensor) -> Tensor:
    with torch.inference_mode():
        h = m.body(x)
    return m.fc(h.clone().relu())


def no_product(change: Callable[[Tensor], Tensor]) -> Callable[[Program, Tensor], Tensor]:
    """Return a model whose only maps after the change are those of a normalisation and a sum."""

    def forward(m: Program, x: Tensor) -> Tensor:
        z = change(m.body(x))
        return (z[:, None, :] * m.fc.weight).sum(2) + m.fc.bias

    return forward


def filled(m: Program, x: Tensor) -> Tensor:
    h = torch.zeros(len(x), WIDTH)
    h[:, :] = m.body(x)
    return m.fc(h.relu())


def view_then_write(m: Program, x: Tensor) -> Tensor:
    h = m.body(x)
    view = h.view(-1)
    view.mul_(1.25)
    return m.fc(h.relu())


def late_alias(m: Program, x: Tensor) -> Tensor:
    z = m.body(x).relu()
    z.data.mul_(1.25)
    return m.fc(z)


def weight_read(m: Program, h: Tensor) -> Tensor:
    return h + m.fc.weight.data.sum() * 0


def alias_read(m: Program, h: Tensor) -> Tensor:
    return h + m.alias.sum() * 0


def weight_written(m: Program, h: Tensor) -> None:
    m.fc.weight.data.mul_(1.0)


def doubled_data(m: Program, h: Tensor) -> None:
    h.data.mul_(2)


def doubled_weight(m: Program, h: Tensor) -> None:
    m.fc.weight.data.mul_(2)


def with_input(m: Program, x: Tensor) -> Tensor:
    return plain(m, x) + x.flatten(1)[:, :CLASSES]


def input_written(m: Program, x: Tensor) -> Tensor:
    x = x.clone() if x.requires_grad else x
    x.mul_(0.5)
    return plain(m, x) + x.flatten(1)[:, :CLASSES] * m.offset


PROGRAMS: dict[str, tuple[Callable[..., Tensor], Callable[..., Tensor]]] = {
    "same": (plain, plain),
    "another_function": (plain, before(lambda m, h: h.tanh())),
    "same_count": (before(lambda m, h: h.sin()), before(lambda m, h: h.cos())),
    "affine_body": (before(lambda m, h: h.sin()), before(lambda m, h: h + m.offset.sum())),
    "fewer_operations": (before(lambda m, h: h.sin()), plain),
    "more_operations": (plain, before(lambda m, h: h.sin().cos().exp())),
    "many_more_operations": (plain, before(lambda m, h: sum((h.sin() for _ in range(20)), h))),
    "no_activation": (plain, lambda m, x: m.fc(m.body(x))),
    "activation_that_is_affine": (plain, lambda m, x: m.fc(m.body(x) * 1.0)),
    "another_head": (plain, lambda m, x: m.skip(m.body(x).relu())),
    "more_after_the_head": (plain, lambda m, x: plain(m, x) * 2),
    "not_affine_after_the_head": (plain, lambda m, x: plain(m, x).tanh()),
    "skip": (plain, with_skip(torch.clone)),
    "affine_skip": (with_skip(torch.clone), with_skip(torch.sin)),
    "weight_of_the_data": (plain, scaled_rows),
    "normalised": (plain, lambda m, x: m.fc(nn.functional.normalize(m.body(x).relu()))),
    "no_longer_normalised": (
        lambda m, x: nn.functional.linear(nn.functional.normalize(m.body(x).relu()), m.fc.weight),
        lambda m, x: nn.functional.linear(m.body(x).relu(), m.fc.weight),
    ),
    "no_product": (no_product(torch.relu), no_product(lambda h: h * 2.0)),
    "softmax": (lambda m, x: plain(m, x).softmax(1), plain),
    "in_place_before": (before(lambda m, h: h.mul_(2)), before(lambda m, h: h.mul_(3))),
    "in_place_features": (plain, after(lambda m, z: z.mul_(2))),
    "always_in_place": (after(lambda m, z: z.mul_(2)), after(lambda m, z: z.add_(2))),
    "overwritten_features": (plain, late_write),
    "always_overwritten": (late_write, late_write),
    "view_then_write": (plain, view_then_write),
    "always_view_then_write": (view_then_write, view_then_write),
    "data_alias": (plain, after(lambda m, z: z.data)),
    "data_alias_before": (plain, before(lambda m, h: h.data)),
    "written_data_alias": (plain, late_alias),
    "always_written_data_alias": (late_alias, late_alias),
    "data_alias_written_before": (plain, before(doubled_data)),
    "numpy_alias": (plain, before(through_numpy)),
    "always_numpy_alias": (before(through_numpy), after(through_numpy)),
    "weight_read": (plain, before(weight_read)),
    "always_weight_read": (before(weight_read), before(weight_read)),
    "alias_read": (plain, before(alias_read)),
    "always_alias_read": (before(alias_read), before(alias_read)),
    "alias_written": (plain, before(lambda m, h: m.alias.mul_(1.0)[0, 0] * 0 + h)),
    "weight_written": (plain, before(weight_written)),
    "always_weight_written": (before(weight_written), before(weight_written)),
    "weight_changed": (plain, before(doubled_weight)),
    "dropout": (plain, before(lambda m, h: nn.functional.dropout(h, 0.5))),
    "noise": (before(lambda m, h: h + 0 * torch.rand(WIDTH)), before(lambda m, h: h.sin())),
    "more_noise": (plain, before(lambda m, h: h + torch.rand(WIDTH))),
    "random_offset": (plain, lambda m, x: plain(m, x) + torch.rand(CLASSES)),
    "early_random_offset": (
        plain,
        early(lambda m: torch.rand(CLASSES), lambda m, z, made: m.fc(z) + made),
    ),
    "offset": (plus_offset, plus_offset),
    "offset_written": (plus_offset, lambda m, x: before(write_offset)(m, x) + m.offset),
    "always_offset_written": (
        lambda m, x: before(write_offset)(m, x) + m.offset,
        lambda m, x: before(write_offset)(m, x) + m.offset,
    ),
    "new_offset": (
        lambda m, x: m.fc(m.body(x).relu()) + x.new_zeros(CLASSES),
        lambda m, x: (lambda made: m.fc(m.body(x).relu()) + made)(x.new_zeros(CLASSES)),
    ),
    "offset_of_the_data": (plus_offset, lambda m, x: before(point_to)(m, x) + m.offset),
    "plain_offset": (
        lambda m, x: plain(m, x) + m.plain,
        lambda m, x: plain(m, x) + m.plain * 2,
    ),
    "early_weight": (
        early(lambda m: m.fc.weight.t(), lambda m, z, made: z @ made + m.fc.bias),
        early(lambda m: m.fc.weight.t() * 2, lambda m, z, made: z @ made + m.fc.bias),
    ),
    "early_offset": (
        early(lambda m: m.offset * 2, lambda m, z, made: m.fc(z) + made),
        early(lambda m: m.offset * 3, lambda m, z, made: m.fc(z) + made),
    ),
    "early_empty": (
        early(lambda m: torch.zeros(CLASSES), lambda m, z, made: m.fc(z) + made),
        early(lambda m: torch.zeros(CLASSES), lambda m, z, made: m.fc(z) + made.copy_(z[0, :4])),
    ),
    "filled": (plain, filled),
    "always_filled": (filled, filled),
    "inference_mode": (plain, in_inference_mode),
    "always_inference_mode": (in_inference_mode, in_inference_mode),
    "input": (plain, with_input),
    "always_input": (with_input, with_input),
    "input_written": (with_input, input_written),
    "rows_of_the_batch": (plain, before(lambda m, h: h - h.mean(0))),
}


def run_program(name: str) -> tuple[list[Any], Program]:
    model = Program(*PROGRAMS[name])

    def switch(changed: bool) -> Callable[[fsb.FeatureSpace], None]:
        return lambda space: setattr(model, "changed", changed)

    def extract(rows: int, seed: int) -> Callable[[fsb.FeatureSpace], Any]:
        return lambda space: space.extract(images(rows, seed))

    def features(space: fsb.FeatureSpace) -> Any:
        x = images(3, 7).requires_grad_()
        z, logits = space.features(x), space.logits(x)
        return z.detach(), logits.detach(), torch.autograd.grad(z.sum(), x)[0]

    steps = [extract(5, 1), extract(5, 2), extract(4, 3), features, features]
    steps += [switch(True), extract(5, 4), extract(1, 5), features, extract(5, 6)]
    steps += [switch(False), extract(5, 8), features]
    return results(model, *steps), model


@pytest.mark.parametrize("name", PROGRAMS)
def test_a_change_is_refused_as_by_full_traces(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    late, model = run_program(name)
    monkeypatch.setattr(passes, "_MISSES", 0)
    full, other = run_program(name)
    check_equal(late, full)
    assert other.calls <= model.calls <= other.calls + 8


def tail_at(name: str, changed: bool, keep: frozenset[int], start: int) -> Any:
    """Return what a trace from a call on shows of a pass; None if it does not suffice."""
    model, x = Program(*PROGRAMS[name]), images(3, 9)
    model.changed = changed
    search = HeadSearch(model, lambda: model(x), [x], 3)
    with torch.no_grad():
        output = search.run(keep, constants=[], start=start)
    try:
        tail = search.tail(output)
        if start and not (search.trace.complete and search.has_kept(tail)):
            return None
        trace = search.trace
        found = tail.names(trace), len(tail.products), len(tail.operations), tail.direction is None
        constants = [constant.name for constant in search.constants(tail)]
        sources = [trace.kept[ref] for ref in tail.sources if ref in trace.kept]
    except (NotAffineError, UnseenOperationError) as reason:
        return None if start else str(reason)
    return (*found, constants), sources, search.calls_of(tail.keep), trace.calls


@pytest.mark.parametrize("changed", [False, True])
@pytest.mark.parametrize("name", PROGRAMS)
def test_from_whatever_call_on_an_end_shows_the_same_or_nothing(name: str, changed: bool) -> None:
    torch.manual_seed(0)
    keep = frozenset(range(60))
    full = tail_at(name, changed, keep, 0)
    calls = 60 if isinstance(full, str) else full[3]
    for start in range(1, calls):
        torch.manual_seed(0)
        late = tail_at(name, changed, keep, start)
        if late is not None:
            assert not isinstance(full, str)
            assert (late[0], *late[2:]) == (full[0], *full[2:])
            assert all(torch.equal(*pair) for pair in zip(late[1], full[1], strict=True))
