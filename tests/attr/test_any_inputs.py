"""Text, audio, video, tables and time series: from extraction to flips, hulls and attributions."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
import torch
import transformers
from captum.attr import IntegratedGradients, LayerIntegratedGradients, Saliency
from torch import Tensor, nn

import fsboundary as fsb
from fsboundary.attr import (
    BoundaryDirection,
    BoundaryDistance,
    FlipImageAttribution,
    HullDistance,
    HullInfluence,
    LayerBoundaryDirection,
)
from fsboundary.attr.robust import BoundaryPush

ROWS, CLASSES = 6, 3
SIZES = {
    "hidden_size": 16,
    "num_hidden_layers": 2,
    "num_attention_heads": 2,
    "intermediate_size": 32,
    "num_labels": CLASSES,
}
TEXT = SIZES | {"vocab_size": 50, "max_position_embeddings": 32, "pad_token_id": 0}


def ids() -> Tensor:
    return torch.randint(5, 50, (ROWS, 9), generator=torch.Generator().manual_seed(1))


def mask() -> Tensor:
    found = torch.ones(ROWS, 9).long()
    found[1, 5:], found[4, 7:] = 0, 0
    return found


def noise(*shape: int) -> Tensor:
    return torch.randn(ROWS, *shape, generator=torch.Generator().manual_seed(2))


class Table(nn.Module):
    """A table of numbers and of one category."""

    def __init__(self) -> None:
        super().__init__()
        self.embed, self.numbers = nn.Embedding(7, 8), nn.Linear(5, 8)
        self.body, self.fc = nn.Linear(16, 12), nn.Linear(12, CLASSES)

    def forward(self, numbers: Tensor, kind: Tensor) -> Tensor:
        z = torch.cat([self.numbers(numbers), self.embed(kind)], dim=1)
        return self.fc(self.body(z.tanh()).relu())


class Recurrent(nn.Module):
    """The last state of a GRU."""

    def __init__(self) -> None:
        super().__init__()
        self.gru, self.fc = nn.GRU(4, 12, batch_first=True), nn.Linear(12, CLASSES)

    def forward(self, x: Tensor) -> Tensor:
        return self.fc(self.gru(x)[0][:, -1])


def series() -> nn.Module:
    return nn.Sequential(
        nn.Conv1d(2, 8, 3), nn.ReLU(), nn.AdaptiveAvgPool1d(1), nn.Flatten(), nn.Linear(8, CLASSES)
    )


def text(kind: str, **options: Any) -> Callable[[], nn.Module]:
    config, model = (
        getattr(transformers, f"{kind}{end}") for end in ("Config", "ForSequenceClassification")
    )
    return lambda: model(config(**TEXT | options))


def distilbert() -> nn.Module:
    config = transformers.DistilBertConfig(
        dim=16, n_layers=2, n_heads=2, hidden_dim=32, vocab_size=50, num_labels=CLASSES
    )
    return transformers.DistilBertForSequenceClassification(config)


def wav2vec2() -> nn.Module:
    config = transformers.Wav2Vec2Config(
        **SIZES,
        conv_dim=(8, 8),
        conv_stride=(5, 2),
        conv_kernel=(10, 3),
        num_feat_extract_layers=2,
        num_conv_pos_embeddings=16,
        num_conv_pos_embedding_groups=2,
        classifier_proj_size=8,
    )
    return transformers.Wav2Vec2ForSequenceClassification(config)


def spectrogram() -> nn.Module:
    config = transformers.ASTConfig(
        **SIZES, patch_size=4, max_length=16, num_mel_bins=8, frequency_stride=4, time_stride=4
    )
    return transformers.ASTForAudioClassification(config)


def video() -> nn.Module:
    config = transformers.VideoMAEConfig(
        **SIZES, image_size=16, patch_size=8, num_frames=4, tubelet_size=2
    )
    return transformers.VideoMAEForVideoClassification(config)


def timesformer() -> nn.Module:
    config = transformers.TimesformerConfig(**SIZES, image_size=16, patch_size=8, num_frames=4)
    return transformers.TimesformerForVideoClassification(config)


Case = tuple[Callable[[], nn.Module], dict[str, Tensor], str]
GPT2 = {"n_embd": 16, "n_layer": 2, "n_head": 2, "bos_token_id": 1, "eos_token_id": 2}
CASES: dict[str, Case] = {
    "BERT": (text("Bert"), {"input_ids": ids(), "attention_mask": mask()}, "bert.embeddings"),
    "RoBERTa": (
        text("Roberta"),
        {"input_ids": ids(), "attention_mask": mask()},
        "roberta.embeddings",
    ),
    "DistilBERT": (
        distilbert,
        {"input_ids": ids(), "attention_mask": mask()},
        "distilbert.embeddings",
    ),
    "Wav2Vec2": (wav2vec2, {"input_values": noise(200)}, "wav2vec2.feature_projection.projection"),
    "AST": (
        spectrogram,
        {"input_values": noise(16, 8)},
        "audio_spectrogram_transformer.embeddings",
    ),
    "VideoMAE": (video, {"pixel_values": noise(4, 3, 16, 16)}, "videomae.embeddings"),
    "TimeSformer": (timesformer, {"pixel_values": noise(4, 3, 16, 16)}, "timesformer.embeddings"),
    "GPT-2": (
        text("GPT2", **GPT2),
        {"input_ids": ids()},
        "transformer.wte",
    ),
    "Llama": (text("Llama"), {"input_ids": ids(), "attention_mask": mask()}, "model.embed_tokens"),
    "Qwen2": (
        text("Qwen2", num_key_value_heads=2),
        {"input_ids": ids(), "attention_mask": mask()},
        "model.embed_tokens",
    ),
    "table": (Table, {"numbers": noise(5), "kind": ids()[:, 0] % 7}, "embed"),
    "series": (series, {"input": noise(2, 20)}, "0"),
    "GRU": (Recurrent, {"x": noise(10, 4)}, ""),
}  # fmt: skip
TEXTS = [name for name, case in CASES.items() if "attention_mask" in case[1]]
FLOATS = [n for n, (_, batch, _) in CASES.items() if next(iter(batch.values())).is_floating_point()]


def build(name: str) -> tuple[nn.Module, dict[str, Tensor], str]:
    make, batch, layer = CASES[name]
    with torch.random.fork_rng():
        torch.manual_seed(0)
        return make().eval(), batch, layer


def logits_of(output: Any) -> Tensor:
    return output if isinstance(output, Tensor) else output.logits


@pytest.mark.parametrize("name", CASES)
def test_extract_flip_points_and_hulls(name: str) -> None:
    model, batch, _ = build(name)
    rows = [{key: part[n : n + 1] for key, part in batch.items()} for n in range(ROWS)]
    positional = name in ("series", "GRU", "table")
    with torch.no_grad():
        if positional:
            want = torch.cat([logits_of(model(*row.values())) for row in rows])
        else:
            want = torch.cat([logits_of(model(**row)) for row in rows])
    space = fsb.FeatureSpace(model, example=batch)
    assert space.head.num_classes == CLASSES
    found = space.extract(batch, batch_size=4)
    assert found.ok.all()
    torch.testing.assert_close(found.logits, want, rtol=1e-4, atol=1e-5)
    other = fsb.FeatureSpace(model)
    again = other.extract(*batch.values()) if name == "table" else other.extract(**batch)
    torch.testing.assert_close(again.features, found.features, rtol=1e-4, atol=1e-5)
    flips = fsb.flip_points(space.head, found.features)
    assert flips.ok.all()
    labels = torch.arange(ROWS) % CLASSES
    halves = [{key: part[half] for key, part in batch.items()} for half in (slice(4), slice(4, 6))]
    loader = [half | {"labels": labels[: len(next(iter(half.values())))]} for half in halves]
    bank = space.bank(loader)
    torch.testing.assert_close(bank.features, found.features, rtol=1e-4, atol=1e-5)
    hull = fsb.hull_projection(bank, found)
    assert (hull.distance <= 1e-4).all()
    assert fsb.hull_projection(bank, found, leave_out=torch.arange(ROWS)).ok.all()


@pytest.mark.parametrize("name", [name for name in CASES if CASES[name][2]])
def test_directions_at_a_layer_are_the_gradients_of_the_flip_distance(name: str) -> None:
    """The unit direction to the flip point, propagated back by hand."""
    model, batch, path = build(name)
    space, layer = fsb.FeatureSpace(model), model.get_submodule(path)
    parts = tuple(batch.values())
    found = LayerBoundaryDirection(space, layer).attribute(parts)
    states: list[Tensor] = []
    hook = layer.register_forward_hook(
        lambda module, given, output: states.append(output.detach().requires_grad_()) or states[-1]
    )
    features = space.features(*parts)
    hook.remove()
    flips = fsb.flip_points(space.head, features.detach())
    unit = flips.points[:, 0] - features.detach().double()
    unit = unit / unit.norm(dim=1, keepdim=True)
    (want,) = torch.autograd.grad((features * unit.to(features)).sum(), states[-1])
    torch.testing.assert_close(found, want, rtol=1e-3, atol=1e-5)


@pytest.mark.parametrize("name", TEXTS)
def test_integrated_gradients_of_a_distance_at_the_embedding_of_tokens(name: str) -> None:
    model, batch, path = build(name)
    tokens, keep = batch["input_ids"], batch["attention_mask"]
    space = fsb.FeatureSpace(model, example=batch)
    distance = BoundaryDistance(space)
    layer = model.get_submodule(path)
    target = space.extract(batch).predicted
    attributions, delta = LayerIntegratedGradients(distance, layer).attribute(
        tokens,
        baselines=torch.zeros_like(tokens),
        additional_forward_args=(keep,),
        target=target,
        n_steps=64,
        return_convergence_delta=True,
    )
    assert attributions.shape == (ROWS, 9, 16)
    with torch.no_grad():
        rows = torch.arange(ROWS)
        change = distance(tokens, keep) - distance(torch.zeros_like(tokens), keep)
    total = attributions.flatten(1).sum(dim=1)
    torch.testing.assert_close(total - change[rows, target], delta.to(total), atol=1e-5, rtol=1e-4)
    size = float(change.abs().max())
    assert float(delta.abs().max()) < 0.05 * size
    assert size > 0


def test_a_distance_takes_mappings_and_keywords() -> None:
    model, batch, _ = build("BERT")
    distance = BoundaryDistance(fsb.FeatureSpace(model))
    want = distance(*batch.values())
    torch.testing.assert_close(distance(batch), want)
    torch.testing.assert_close(distance(**batch), want)
    torch.testing.assert_close(distance(batch["input_ids"], attention_mask=mask()), want)
    space = fsb.FeatureSpace(model)
    hull = HullDistance(space, space.bank([batch]))
    assert float(hull(batch).detach().abs().max()) < 1e-4


def test_influence_of_training_texts() -> None:
    model, batch, _ = build("BERT")
    space = fsb.FeatureSpace(model)
    influence = HullInfluence(space, space.bank([batch]))
    for inputs in (tuple(batch.values()), batch):
        assert influence.influence(inputs, 1).indices[:, 0].tolist() == list(range(ROWS))
    supports = influence.influence(ids(), 1, additional_forward_args=(mask(),))
    assert supports.indices[:, 0].tolist() == list(range(ROWS))


@pytest.mark.parametrize("name", [n for n in FLOATS if len(CASES[n][1]) == 1])
def test_directions_at_the_inputs_of_models_without_images(name: str) -> None:
    model, batch, _ = build(name)
    (x,) = (part.clone().requires_grad_() for part in batch.values())
    space = fsb.FeatureSpace(model)
    direction = BoundaryDirection(space).attribute(x)
    assert direction.shape == x.shape
    assert torch.isfinite(direction).all()
    distance = BoundaryDistance(space)
    target = space.extract(x).predicted
    # away from the nearest boundary: the distance inside the own region grows along its gradient
    saliency = Saliency(distance).attribute(x, target=target, abs=False)
    torch.testing.assert_close(-direction, saliency, rtol=1e-3, atol=1e-5)
    if name in ("series", "GRU"):
        path, delta = IntegratedGradients(distance).attribute(
            x, target=target, n_steps=200, return_convergence_delta=True
        )
        assert path.shape == x.shape
        assert float(delta.abs().max()) < 0.05


NO_GRADIENT: dict[str, Callable[[nn.Module, Any], Any]] = {
    "BoundaryDirection": lambda model, x: BoundaryDirection(model).attribute(x),
    "FlipImageAttribution": lambda model, x: FlipImageAttribution(model).attribute(x),
    "BoundaryPush": lambda model, x: BoundaryPush(model).perturb(x, 0.1),
}


@pytest.mark.parametrize("method", NO_GRADIENT)
@pytest.mark.parametrize("wrong", ["ids", "mapping", "list"])
def test_methods_that_need_gradients_of_the_inputs_name_those_that_do_not(
    method: str, wrong: str
) -> None:
    model, batch, _ = build("BERT")
    x = {"ids": batch["input_ids"], "mapping": batch, "list": list(batch["input_ids"])}[wrong]
    with pytest.raises(fsb.ArgumentError, match=r"inputs: got .*LayerBoundaryDirection, or with"):
        NO_GRADIENT[method](model, x)


PIXELS: dict[str, Callable[[nn.Module, Any], Any]] = {
    "flip_images": fsb.pixels.flip_images,
    "morph": lambda model, x: fsb.pixels.morph(model, x, x),
    "amplification": lambda model, x: fsb.pixels.amplification(model, x, radius=0.1),
    "two_spaces": lambda model, x: fsb.analysis.two_spaces(model, x, LABELS, x, LABELS),
    "attribute_methods": lambda model, x: fsb.attr.attribute_methods(model, x, {}),
    "compare_methods": lambda model, x: fsb.attr.compare_methods(model, x, {}),
    "compare": lambda model, x: fsb.attr.compare(x, {"boundary": x}),
}
LABELS = torch.arange(ROWS) % CLASSES


@pytest.mark.parametrize("function", PIXELS)
@pytest.mark.parametrize("wrong", ["ids", "mapping", "tuple"])
def test_functions_of_pixels_refuse_other_inputs_and_name_what_takes_them(
    function: str, wrong: str
) -> None:
    model, batch, _ = build("BERT")
    x = {"ids": batch["input_ids"], "mapping": batch, "tuple": tuple(batch.values())}[wrong]
    with pytest.raises(fsb.ArgumentError, match=r"(images|start): got .*FeatureSpace.extract"):
        PIXELS[function](model, x)


def test_the_accuracy_of_any_model_is_checked() -> None:
    model, batch, _ = build("BERT")
    labels = fsb.FeatureSpace(model).extract(batch).predicted
    assert fsb.pixels.check_accuracy(model, batch, labels) == 1
    with pytest.raises(fsb.ArgumentError, match=r"labels: got shape \(5,\); wanted .* \(6,\)"):
        fsb.pixels.check_accuracy(model, batch, labels[:5])
