"""Inputs of any structure: features and logits are those of a loop over single examples."""

from __future__ import annotations

import warnings
from collections import OrderedDict, UserDict
from collections.abc import Callable, Iterator
from pathlib import Path
from types import MappingProxyType
from typing import Any, NamedTuple

import pytest
import torch
from torch import Tensor, nn
from torch.utils.data import DataLoader, TensorDataset

import fsboundary as fsb
from fsboundary.core.errors import ArgumentError, DataError, HeadError
from fsboundary.models.inputs import model_arguments, num_rows
from fsboundary.models.structures import leaves_of, map_leaves

ROWS, CLASSES = 6, 3
Two = tuple[Tensor, Tensor]


def numbers(*shape: int, seed: int = 0) -> Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed))


def integers(*shape: int, seed: int = 0) -> Tensor:
    return torch.randint(20, shape, generator=torch.Generator().manual_seed(seed))


class Head(nn.Module):
    """A model with a linear head ``fc`` on 8 features; keeps the sizes of its batches."""

    def __init__(self, width: int = 8) -> None:
        super().__init__()
        with torch.random.fork_rng():
            torch.manual_seed(0)
            self.fc, self.embed = nn.Linear(width, CLASSES), nn.Embedding(20, width)
            self.ages = nn.Linear(5, width)
        self.sizes: list[int] = []
        self.eval()

    def classify(self, z: Tensor) -> Tensor:
        self.sizes.append(len(z))
        return self.fc(torch.tanh(z))


class Tokens(Head):
    """Token ids and a mask, by position or by name, as models of transformers take them."""

    def forward(self, input_ids: Tensor, attention_mask: Tensor | None = None) -> Tensor:
        mask = torch.ones_like(input_ids) if attention_mask is None else attention_mask
        weight = mask[..., None] / mask.sum(1)[:, None, None]
        return self.classify((self.embed(input_ids) * weight).sum(1))


class Table(Head):
    """A model of two inputs: numbers and categories."""

    def forward(self, ages: Tensor, kinds: Tensor) -> Tensor:
        return self.classify(self.ages(ages) + self.embed(kinds))


class Record(Head):
    """A model that takes one mapping."""

    def forward(self, batch: Any) -> Tensor:
        return self.classify(self.ages(batch["ages"]) + self.embed(batch["more"]["kinds"]))


class Pair(Head):
    """A model that takes one tuple, and a shift for all examples."""

    def forward(self, pair: tuple[Tensor, Tensor], shift: Any = 0.0) -> Tensor:
        return self.classify(self.ages(pair[0]) + self.embed(pair[1]) + shift)


class Pool(Head):
    """Images of any size."""

    def forward(self, x: Tensor) -> Tensor:
        return self.classify(x.mean(dim=(2, 3)) @ self.ages.weight[:, :3].T)


class Series(Head):
    """Sequences of any length."""

    def forward(self, x: Tensor) -> Tensor:
        return self.classify(self.ages(x).mean(1))


class Both(NamedTuple):
    ages: Tensor
    kinds: Tensor


IDS, MASK = integers(ROWS, 7), torch.ones(ROWS, 7).long()
AGES, KINDS = numbers(ROWS, 5), integers(ROWS)
MASK[1, 3:], MASK[4, 5:] = 0, 0
SIZES = [(4, 4), (4, 4), (5, 3), (6, 6), (5, 3), (5, 3)]
SERIES = [numbers(length, 5, seed=n) for n, length in enumerate((2, 2, 4, 3, 1, 1))]
IMAGES = [numbers(3, *size, seed=n) for n, size in enumerate(SIZES)]


def nested(tensors: list[Tensor], layout: torch.layout) -> Tensor:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # torch warns that nested tensors are new
        return torch.nested.nested_tensor(tensors, layout=layout)


Call = tuple[type[Head], Callable[[], tuple[tuple[Any, ...], dict[str, Any]]]]
CALLS: dict[str, Call] = {
    "ids": (Tokens, lambda: ((IDS,), {})),
    "int32": (Tokens, lambda: ((IDS.int(),), {})),
    "mapping": (Tokens, lambda: (({"input_ids": IDS, "attention_mask": MASK},), {})),
    "mapping, another order": (Tokens, lambda: (({"attention_mask": MASK, "input_ids": IDS},), {})),
    "UserDict": (Tokens, lambda: ((UserDict(input_ids=IDS, attention_mask=MASK),), {})),
    "proxy": (
        Tokens,
        lambda: ((MappingProxyType({"input_ids": IDS, "attention_mask": MASK}),), {}),
    ),
    "keywords": (Tokens, lambda: ((), {"input_ids": IDS, "attention_mask": MASK})),
    "one keyword": (Tokens, lambda: ((IDS,), {"attention_mask": MASK})),
    "mapping and keyword": (Tokens, lambda: (({"input_ids": IDS},), {"attention_mask": MASK})),
    "two arguments": (Table, lambda: ((AGES, KINDS), {})),
    "tuple": (Table, lambda: (((AGES, KINDS),), {})),
    "named tuple": (Table, lambda: ((Both(AGES, KINDS),), {})),
    "list of two": (Table, lambda: (([AGES, KINDS],), {})),
    "list of pairs": (Table, lambda: ((list(zip(AGES, KINDS, strict=True)),), {})),
    "list of mappings": (
        Tokens,
        lambda: (
            ([{"input_ids": i, "attention_mask": m} for i, m in zip(IDS, MASK, strict=True)],),
            {},
        ),
    ),
    "one mapping": (Record, lambda: (({"ages": AGES, "more": {"kinds": KINDS}},), {})),
    "one OrderedDict": (Record, lambda: ((OrderedDict(ages=AGES, more={"kinds": KINDS}),), {})),
    "one UserDict": (Record, lambda: ((UserDict(ages=AGES, more=UserDict(kinds=KINDS)),), {})),
    "one tuple": (Pair, lambda: ((((AGES, KINDS),),), {})),
    "one tuple and a setting": (Pair, lambda: ((((AGES, KINDS),),), {"shift": 0.5})),
    "one tuple and a table": (Pair, lambda: ((((AGES, KINDS),),), {"shift": numbers(8)})),
    "images of different sizes": (Pool, lambda: ((IMAGES,), {})),
    "nested, strided": (Pool, lambda: ((nested(IMAGES, torch.strided),), {})),
    "sequences of different lengths": (Series, lambda: ((SERIES,), {})),
    "nested, jagged": (Series, lambda: ((nested(SERIES, torch.jagged),), {})),
}


def logits_of(kind: type[Head], arguments: tuple[tuple[Any, ...], dict[str, Any]]) -> Tensor:
    """Return the logits of a loop over single examples, by the arguments that Python passes."""
    args, named = arguments
    model, pairs = kind(), list(zip(AGES[:, None], KINDS[:, None], strict=True))
    with torch.no_grad():
        if kind is Tokens:
            masks = MASK if len(leaves_of(arguments)) > 1 else torch.ones_like(MASK)
            return torch.cat([model(i[None], m[None]) for i, m in zip(IDS, masks, strict=True)])
        if kind in (Pool, Series):
            images = args[0].unbind() if isinstance(args[0], Tensor) else args[0]
            return torch.cat([model(x[None]) for x in images])
        if kind is Record:
            return torch.cat([model({"ages": a, "more": {"kinds": k}}) for a, k in pairs])
        if kind is Pair:
            return torch.cat([model(pair, **named) for pair in pairs])
        return torch.cat([model(*pair) for pair in pairs])


@pytest.mark.parametrize("name", CALLS)
@pytest.mark.parametrize("batch_size", [1, 2, 4, 256])
def test_extract_is_a_loop_over_single_examples(name: str, batch_size: int) -> None:
    kind, make = CALLS[name]
    arguments = make()
    model = kind()
    space = fsb.FeatureSpace(model)
    batch = space.extract(*arguments[0], **arguments[1], batch_size=batch_size)
    want = logits_of(kind, arguments)
    assert batch.ok.all()
    torch.testing.assert_close(batch.logits, want)
    torch.testing.assert_close(space.head.logits(batch.features), want.double(), **LOOSE)
    assert max(model.sizes) <= batch_size
    for method, wanted in ((space.logits, batch.logits), (space.features, batch.features)):
        found = method(*arguments[0], **arguments[1])
        torch.testing.assert_close(found, wanted)
        assert found.requires_grad


LOOSE = {"rtol": 1e-5, "atol": 1e-5}


def test_examples_of_one_shape_in_succession_run_together() -> None:
    model = Pool()
    space = fsb.FeatureSpace(model)
    space.extract(IMAGES)
    model.sizes.clear()
    space.extract(IMAGES)
    assert model.sizes == [2, 1, 1, 2]
    model.sizes.clear()
    space.extract(IMAGES, batch_size=1)
    assert model.sizes == [1] * 6


def test_tensors_of_another_first_dimension_are_passed_whole_at_every_batch_size() -> None:
    """Also where a batch has as many rows as a table that all examples share."""
    table = torch.eye(2)

    class Shared(Table):
        def forward(self, ages: Tensor, kinds: Tensor, table: Tensor) -> Tensor:  # type: ignore[override]  # one more
            assert table.shape == (2, 2)
            return super().forward(ages, kinds) + 0 * table.sum()

    want = fsb.FeatureSpace(Table()).extract(AGES, KINDS).logits
    for size in (1, 2, 4):
        for call in (
            lambda space, size: space.extract(AGES, KINDS, table, batch_size=size),
            lambda space, size: space.extract(AGES, kinds=KINDS, table=table, batch_size=size),
            lambda space, size: space.extract((AGES, KINDS), table=table, batch_size=size),
        ):
            torch.testing.assert_close(call(fsb.FeatureSpace(Shared()), size).logits, want)


class Nested(NamedTuple):
    mapping: Any
    rest: Any


def test_leaves_keep_their_containers_and_their_order() -> None:
    value = Nested(
        UserDict(b=1, a=[2, {"c": 3}]), (MappingProxyType({"d": 4}), None, torch.ones(2))
    )
    doubled = map_leaves(lambda leaf: leaf if leaf is None else leaf * 2, value)
    assert isinstance(doubled, Nested)
    assert type(doubled.mapping) is UserDict
    assert dict(doubled.mapping) == {"b": 2, "a": [4, {"c": 6}]}
    assert doubled.rest[0] == {"d": 8}
    assert value.mapping["b"] == 1
    assert leaves_of(value)[:4] == [1, 2, 3, 4]
    assert num_rows(value) == 2
    assert num_rows({"a": "text", "b": torch.tensor(3)}) == 0


def mixing(kind: type[Head]) -> type[Head]:
    """Return a model like `kind` whose rows depend on the other rows."""

    class Mixing(kind):  # type: ignore[misc,valid-type]  # a class made here
        def classify(self, z: Tensor) -> Tensor:
            return super().classify(z - z.mean(0))

    return Mixing


def chance(kind: type[Head]) -> type[Head]:
    class Chance(kind):  # type: ignore[misc,valid-type]  # a class made here
        def classify(self, z: Tensor) -> Tensor:
            return super().classify(nn.functional.dropout(z, 0.5))

    return Chance


@pytest.mark.parametrize("name", CALLS)
def test_rows_that_depend_on_others_or_on_chance_are_refused(name: str) -> None:
    kind, make = CALLS[name]
    args, named = make()
    with pytest.raises(HeadError, match="depend on the other examples of its batch"):
        fsb.FeatureSpace(mixing(kind)()).extract(*args, **named)
    with pytest.raises(HeadError, match="random numbers are drawn in eval mode"):
        fsb.FeatureSpace(chance(kind)()).extract(*args, **named)


@pytest.mark.parametrize("name", CALLS)
def test_the_check_costs_two_examples_of_any_structure(name: str) -> None:
    kind, make = CALLS[name]
    args, named = make()
    model = kind()
    fsb.FeatureSpace(model).extract(*args, **named)
    assert sum(model.sizes) == ROWS + 2


def test_preprocessing_of_structures() -> None:
    def older(batch: dict[str, Any]) -> dict[str, Any]:
        return batch | {"ages": batch["ages"] + 1}

    inputs = {"ages": AGES, "more": {"kinds": KINDS}}
    space = fsb.FeatureSpace(Record(), preprocess=older)
    want = fsb.FeatureSpace(Table()).extract(AGES + 1, KINDS).logits
    torch.testing.assert_close(space.extract(inputs, batch_size=4).logits, want)

    def centred(batch: dict[str, Any]) -> dict[str, Any]:
        return batch | {"ages": batch["ages"] - batch["ages"].mean(0)}

    with pytest.raises(HeadError, match="preprocess= uses the other examples"):
        fsb.FeatureSpace(Record(), preprocess=centred).extract(inputs)

    def noisy(batch: dict[str, Any]) -> dict[str, Any]:
        return batch | {"ages": batch["ages"] + torch.randn(5)}

    with pytest.raises(HeadError, match="preprocess= gives another result for the same inputs"):
        fsb.FeatureSpace(Record(), preprocess=noisy).extract(inputs)


def test_tensors_of_inference_mode_in_structures_carry_gradients_later() -> None:
    space = fsb.FeatureSpace(Tokens())
    with torch.inference_mode():
        inputs = {"input_ids": IDS.clone(), "attention_mask": MASK.clone().float()}
        want = space.extract(inputs).features
    z = space.features(inputs)
    torch.testing.assert_close(z, want.clone())
    (slope,) = torch.autograd.grad(z.sum(), space.model.embed.weight)
    assert bool(slope.abs().sum() > 0)


def test_no_examples_of_any_structure() -> None:
    space = fsb.FeatureSpace(Tokens())
    with pytest.raises(HeadError, match="head is not known yet"):
        space.extract(input_ids=IDS[:0])
    space.extract(IDS)
    empty = space.extract({"input_ids": IDS[:0], "attention_mask": MASK[:0]})
    assert empty.features.shape == (0, 8)


BAD: list[tuple[Callable[[], Any], str]] = [
    (lambda: None, r"inputs: got None; wanted a tensor \(B, ...\), or a mapping"),
    (lambda: {}, "inputs: got no tensors"),
    (lambda: [], "inputs: got no tensors"),
    (lambda: {"input_ids": [[1, 2], [3, 4]]}, 'inputs: got no tensors.*return_tensors="pt"'),
    (lambda: "a text", "inputs: got 'a text'"),
    (lambda: ["a text"], r"inputs\[0\]: got 'a text'; wanted tensors of one example"),
    (
        lambda: {"input_ids": IDS.numpy().astype(object)},
        r"inputs\['input_ids'\]: got a ndarray.*as_tensor",
    ),
    (
        lambda: (IDS, MASK[:4]),
        r"inputs\[1\]: got first dimension 4; wanted 6 examples, as in inputs\[0\].*argument",
    ),
    (
        lambda: {"input_ids": IDS, "attention_mask": MASK[:1]},
        r"inputs\['attention_mask'\]: got first dimension 1",
    ),
    (lambda: {"pixels": IDS.byte()}, r"inputs\['pixels'\]: got dtype torch.uint8.*divide by 255"),
    (lambda: [IDS[0], IDS[1].byte()], "got dtype torch.uint8"),
    (lambda: [(AGES[0], KINDS[0]), (AGES[1],)], r"inputs\[1\]: got another structure"),
    (lambda: [{"input_ids": IDS[0]}, {"ids": IDS[1]}], r"inputs\[1\]: got another structure"),
    (lambda: torch.tensor(3.0), r"needs \[None\]"),
    (lambda: IDS[0], r"a single example needs \[None\]"),
    (lambda: nested([], torch.strided), "a nested tensor without rows"),
]


@pytest.mark.parametrize("number", range(len(BAD)))
def test_inputs_that_are_rejected_before_the_model_runs(number: int) -> None:
    make, message = BAD[number]
    model = Tokens()
    space = fsb.FeatureSpace(model)
    for call in (space.extract, space.logits, space.features):
        with pytest.raises(ArgumentError, match=message):
            call(make())
    if make() is not None:
        with pytest.raises(ArgumentError, match=message):
            fsb.FeatureSpace(model, example=make())
    assert not model.sizes


# banks


def batches(size: int = 2) -> list[tuple[Tensor, Tensor, Tensor]]:
    labels = torch.arange(ROWS) % CLASSES
    return list(zip(IDS.split(size), MASK.split(size), labels.split(size), strict=True))


class Pairs(torch.utils.data.Dataset[Any]):
    """Examples ((ages, kind), class), which a DataLoader collates to lists."""

    def __len__(self) -> int:
        return ROWS

    def __getitem__(self, n: int) -> Any:
        return (AGES[n], KINDS[n]), n % CLASSES


LOADERS: dict[str, tuple[type[Head], Callable[[], Any], bool]] = {
    "labels": (
        Tokens,
        lambda: [{"input_ids": i, "attention_mask": m, "labels": y} for i, m, y in batches()],
        True,
    ),
    "label": (
        Tokens,
        lambda: [UserDict(input_ids=i, attention_mask=m, label=y) for i, m, y in batches()],
        True,
    ),
    "mapping": (
        Tokens,
        lambda: [{"input_ids": i, "attention_mask": m} for i, m, _ in batches()],
        False,
    ),
    "pair": (
        Tokens,
        lambda: [({"input_ids": i, "attention_mask": m}, y) for i, m, y in batches()],
        True,
    ),
    "tuple": (Tokens, lambda: [((i, m), y) for i, m, y in batches()], True),
    "tuple of one": (Tokens, lambda: [((i, m),) for i, m, _ in batches()], False),
    "collated": (Table, lambda: DataLoader(Pairs(), batch_size=2), True),
    "list of examples": (
        Pool,
        lambda: [(IMAGES[n : n + 3], torch.tensor([0, 1, 2])) for n in (0, 3)],
        True,
    ),
    "ids": (
        Tokens,
        lambda: DataLoader(TensorDataset(IDS, torch.arange(ROWS) % CLASSES), batch_size=2),
        True,
    ),
}


@pytest.mark.parametrize("name", LOADERS)
def test_banks_from_loaders_of_any_structure(name: str, tmp_path: Path) -> None:
    kind, make, labelled = LOADERS[name]
    want = {
        Tokens: lambda space: space.extract(IDS, MASK if name != "ids" else None),
        Table: lambda space: space.extract(AGES, KINDS),
        Pool: lambda space: space.extract(IMAGES),
    }[kind](fsb.FeatureSpace(kind()))
    for path in (None, tmp_path / "bank"):
        bank = fsb.FeatureSpace(kind()).bank(make(), path)
        torch.testing.assert_close(bank.features, want.features)
        assert (bank.labels is not None) == labelled
        if labelled:
            assert torch.equal(bank.labels, torch.arange(ROWS) % CLASSES)


CHANGES: dict[str, Callable[[dict[str, Any]], dict[str, Any]]] = {
    "first tensor": lambda batch: batch | {"input_ids": batch["input_ids"] + 1},
    "second tensor": lambda batch: (
        batch | {"attention_mask": batch["attention_mask"] * 0 + torch.arange(7)}
    ),
    "names exchanged": lambda batch: {
        "input_ids": batch["attention_mask"],
        "attention_mask": batch["input_ids"],
        "labels": batch["labels"],
    },
    "a setting": lambda batch: batch | {"scale": 2.0},
    "labels": lambda batch: batch | {"labels": (batch["labels"] + 1) % CLASSES},
}


class Scaled(Tokens):
    def forward(self, input_ids: Any, attention_mask: Any = None, scale: float = 1.0) -> Tensor:  # type: ignore[override]  # one more
        return super().forward(input_ids, attention_mask)


@pytest.mark.parametrize("change", CHANGES)
def test_a_resumed_bank_recognises_every_part_of_its_batches(change: str, tmp_path: Path) -> None:
    def loader(changed: int = -1) -> Iterator[Any]:
        for number, (i, m, y) in enumerate(batches(1)):
            batch = {"input_ids": i, "attention_mask": m, "labels": y, "scale": 1.0}
            yield CHANGES[change](batch) if number == changed else batch

    path = tmp_path / "bank"
    bank = fsb.FeatureSpace(Scaled()).bank(loader(), path)
    again = fsb.FeatureSpace(Scaled()).bank(loader(), path)
    assert torch.equal(again.features, bank.features)
    with pytest.raises(DataError, match=r"batch 2 of the loader \(rows 2 to 2\) is not the one"):
        fsb.FeatureSpace(Scaled()).bank(loader(2), path)


def test_a_second_input_in_the_place_of_labels_is_refused() -> None:
    message = r"a pair whose second part has shape \(6, 7\).*\(\(first, second\),\) without labels"
    with pytest.raises(ArgumentError, match=message):
        fsb.FeatureSpace(Tokens()).bank([(IDS, MASK)])


# an example


EXAMPLES: dict[str, tuple[type[Head], Callable[[], Any]]] = {
    name: (kind, lambda make=make: make()[0][0])
    for name, (kind, make) in CALLS.items()
    if len(make()[0]) == 1 and not make()[1]
}


@pytest.mark.parametrize("name", EXAMPLES)
def test_with_an_example_the_head_is_known_at_once(name: str) -> None:
    kind, make = EXAMPLES[name]
    model = kind()
    reference = fsb.FeatureSpace(kind())
    reference.extract(make())
    reads: list[Callable[[fsb.FeatureSpace], Any]] = [
        lambda space: space.head.fingerprint,
        lambda space: space.domain,
        lambda space: space.fingerprint,
        lambda space: space.notes()["layer"],
        lambda space: (
            space.extract(map_leaves(lambda leaf: leaf[:0], make())).features.shape
            if isinstance(make(), Tensor) and not make().is_nested
            else None
        ),
    ]
    for read in reads:
        assert read(fsb.FeatureSpace(model, example=make())) == read(reference)


def test_an_example_is_verified_like_any_batch_and_runs_once() -> None:
    model = Tokens()
    space = fsb.FeatureSpace(model, example=IDS)
    assert not model.sizes
    assert space.head.num_classes == CLASSES
    assert (space.domain, space.fingerprint) == (space.head.domain, space.fingerprint)
    assert sum(model.sizes) == ROWS + 2
    for broken, message in ((mixing(Tokens), "depend on the other"), (chance(Tokens), "random")):
        with pytest.raises(HeadError, match=message):
            _ = fsb.FeatureSpace(broken(), example=IDS).head
    with pytest.raises(HeadError, match="training mode"):
        _ = fsb.FeatureSpace(Tokens().train(), example=IDS).domain


def test_a_copied_space_keeps_its_example_and_verifies_anew() -> None:
    import copy

    space = fsb.FeatureSpace(Tokens(), example=IDS)
    fingerprint = space.fingerprint
    changed = copy.deepcopy(space)
    with torch.no_grad():
        changed.model.fc.weight.mul_(2)
    assert changed.fingerprint != fingerprint
    assert copy.deepcopy(space).fingerprint == fingerprint


def test_an_extractor_without_a_head_is_an_error_with_an_example_too() -> None:
    class Headless(fsb.FeatureExtractor):
        def features(self, model: Any, inputs: Any, /, *more: Any, **keywords: Any) -> Two:
            return inputs.float(), model(inputs)

        def head(self, model: nn.Module) -> None:
            return None

    with pytest.raises(HeadError, match="not known yet"):
        _ = fsb.FeatureSpace(Tokens(), extractor=Headless(), example=IDS).head


def test_extractors_of_other_packages_get_copies_of_all_tensors() -> None:
    class Writes(fsb.FeatureExtractor):
        def features(self, model: Any, inputs: Any, /, *more: Any, **keywords: Any) -> Two:
            logits = model(**inputs, **keywords)
            ids, mask = inputs["input_ids"], keywords["attention_mask"]
            weight = mask[..., None] / mask.sum(1)[:, None, None]
            z = torch.tanh((model.embed(ids) * weight).sum(1))
            ids.zero_(), mask.zero_()
            return z, logits

        def head(self, model: Any) -> fsb.LinearHead:
            return fsb.LinearHead(model.fc.weight, model.fc.bias)

    ids, mask = IDS.clone(), MASK.clone()
    batch = fsb.FeatureSpace(Tokens(), extractor=Writes()).extract(
        {"input_ids": ids}, attention_mask=mask
    )
    assert torch.equal(ids, IDS)
    assert torch.equal(mask, MASK)
    torch.testing.assert_close(batch.logits, fsb.FeatureSpace(Tokens()).extract(IDS, MASK).logits)


def test_a_surrogate_is_fitted_on_mappings() -> None:
    class Counts(fsb.FeatureExtractor):
        """Counts of tokens, with a fitted head."""

        surrogate = True
        found: fsb.LinearHead | None = None

        def features(self, model: Any, inputs: Any, /, *more: Any, **keywords: Any) -> Two:
            counts = nn.functional.one_hot(inputs["input_ids"], 20).sum(1).float()
            return counts, model(**inputs)

        def fit(self, model: Any, loader: Any) -> Any:
            rows = [self.features(model, batch) for batch in loader]
            z, logits = (torch.cat(parts) for parts in zip(*rows, strict=True))
            self.shown = len(z)
            self.found = fsb.logistic_head(z, logits.argmax(1), CLASSES)
            return self

        def head(self, model: Any) -> Any:
            return self.found

    ids = integers(200, 7)
    loader = [
        {"input_ids": part, "labels": torch.zeros(len(part)).long()} for part in ids.split(50)
    ]
    extractor = Counts()
    space = fsb.FeatureSpace(Tokens(), extractor=extractor).fit(loader)
    assert 0 < 200 - extractor.shown < 80
    assert space.fidelity is not None
    assert f"of {200 - extractor.shown} held-out examples" in space.notes()["fidelity"]


def test_batches_of_arguments_are_views_of_the_whole() -> None:
    arguments = model_arguments(Tokens(), {"input_ids": IDS, "attention_mask": MASK})
    assert [part.rows for part in arguments.batches(4)] == [4, 2]
    [whole] = arguments.batches(6)
    assert whole is arguments
    parts = [part.inputs["input_ids"] for part in arguments.batches(4)]
    start = IDS.untyped_storage().data_ptr()
    assert all(part.untyped_storage().data_ptr() == start for part in parts)
