"""Heads of the models of common libraries: found and right, refused, or silently wrong.

Run ``tox run -e zoo``, or ``python tests/benchmarks/zoo.py [--library timm] [--only NAME ...]``.
The smallest variant of every module of timm (``zoo_timm.txt``), every classifier of torchvision,
every image, sequence, audio and video classifier of transformers (small configurations), zero-shot
classifiers of open_clip and unmerged adapters of peft, all with random weights and no download.
Each model runs in its own process. It is extracted on two examples, and then

- its logits on two other batches must be those of the model, and ``W z + b`` within the tolerance
  (the package checks that), and their change between the two must be ``W`` times that of the
  features, which it does not check;
- the layer whose outputs are the classes, if there is one only and it is linear or a 1x1
  convolution, must be the head: it has the head's weights, and its inputs are the features.

``zoo_exceptions.txt`` lists models that cannot be built or have no linear head, with the reason;
the share of right heads is that of all other models. The last line has the counts as JSON. Exit
code 1 if a head is wrong, or under 98 % are found. ``zoo_results.txt`` has the lines of a run.
"""

from __future__ import annotations

import argparse
import json
import multiprocessing
import resource
import sys
import warnings
from collections.abc import Callable, Iterable
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn
from zoo_samples import (
    CLASSES,
    Sample,
    open_clip_models,
    peft_models,
    smallest_of_timm,
    timm_models,
    torchvision_models,
)
from zoo_transformers import transformers_models

import fsboundary as fsb

SHARE = 0.98
SECONDS, BYTES = 900, 7 * 2**30
OUTCOMES = ("right", "refused", "wrong", "crashed", "not built")
EXCEPTIONS = Path(__file__).with_name("zoo_exceptions.txt")
SOURCES = {
    "timm": timm_models,
    "torchvision": torchvision_models,
    "transformers": transformers_models,
    "open_clip": open_clip_models,
    "peft": peft_models,
}


def stir(model: nn.Module) -> None:
    """Change all parameters a little: fresh heads are often zero, and would match anything."""
    generator = torch.Generator().manual_seed(0)
    with torch.no_grad():
        for p in model.parameters():
            p.add_(0.02 * torch.randn(p.shape, generator=generator))
        for name, b in model.named_buffers():
            if name.endswith("running_mean"):
                b.add_(0.1 * torch.randn(b.shape, generator=generator))


def run(model: nn.Module, inputs: Any) -> Tensor:
    """Return the logits of a plain pass."""
    with torch.no_grad():
        output = model(**inputs) if isinstance(inputs, dict) else model(inputs)
    if isinstance(output, dict):
        output = output.get("logits", next(iter(output.values())))
    return (output if isinstance(output, Tensor) else next(iter(output))).flatten(1)


def classifier(model: nn.Module) -> tuple[str, Tensor] | None:
    """Return name and weight (K,d) of the layer whose outputs are the classes, if it is plain."""
    found = []
    for name, module in model.named_modules():
        weight = getattr(module, "weight", None)
        if isinstance(module, nn.Linear | nn.Conv1d | nn.Conv2d) and len(weight) == CLASSES:
            found.append((name, weight.detach()))
    if len(found) != 1 or found[0][1].numel() != CLASSES * found[0][1].shape[1]:
        return None
    return found[0][0], found[0][1].flatten(1).double()


def inputs_of(model: nn.Module, layer: str, inputs: Any) -> Tensor:
    """Return the inputs of a layer in a plain pass."""
    seen: list[Tensor] = []
    handle = model.get_submodule(layer).register_forward_pre_hook(lambda m, a: seen.append(a[0]))
    run(model, inputs)
    handle.remove()
    return seen[-1]


def is_features(features: Tensor, given: Tensor) -> bool:
    """Return whether features (B,d) are the inputs of a layer, of a position, or means of them.

    Means are those of the first positions, of all or of as many as an attention mask may have.
    """
    rows, d = features.shape
    if given.ndim == 4 and given.shape[1] == d:
        given = given.flatten(2).mT
    table = given.reshape(rows, -1, d)
    counts = torch.arange(1, table.shape[1] + 1)[:, None]
    choices = torch.cat([table, table.cumsum(dim=1) / counts], dim=1)
    near = (choices - features[:, None]).abs().amax(dim=2) <= 1e-5 * features.abs().max()
    return bool(near.any(dim=1).all())


def reference(sample: Sample, inputs: Any) -> tuple[str, Tensor, Tensor] | None:
    """Return the layer of the classes, its weight (K,d) and its inputs, if these are known."""
    if sample.expected is not None:
        with torch.no_grad():
            given, weight = sample.expected(inputs)
        return "", weight.double(), given
    known = classifier(sample.model)
    return None if known is None else (*known, inputs_of(sample.model, known[0], inputs))


def compare(space: fsb.FeatureSpace, batch: fsb.FeatureBatch, known: Any) -> str:
    """Return in what the head differs from what is known of it; empty if in nothing."""
    layer, weight, given = known
    found, head = space.notes()["layer"], space.head
    if layer not in ("", found):
        return f"the head is {found}, not {layer}"
    if weight.shape != head.weight.shape:
        return f"weights of shape {tuple(head.weight.shape)}, not {tuple(weight.shape)}"
    scale = head.weight.norm() / weight.norm()
    if not torch.allclose(head.weight, weight * scale, rtol=1e-5, atol=1e-7):
        return f"other weights than those of {found}"
    if not is_features(batch.features, given):
        return f"other features than the inputs of {found}"
    return ""


def judge(sample: Sample) -> tuple[str, str]:
    """Return the outcome of a model, and why."""
    model, draw, _ = sample
    stir(model.eval())
    generator = torch.Generator().manual_seed(1)
    space = fsb.FeatureSpace(model)
    try:
        space.extract(draw(generator))
    except fsb.HeadError as error:
        return "refused", str(error)
    head = space.head
    one, two = draw(generator), draw(generator)
    try:
        first, second = space.extract(one), space.extract(two)
    except fsb.FsboundaryError as error:
        return "refused", f"a later batch: {error}"
    for batch, inputs in ((first, one), (second, two)):
        if not torch.allclose(batch.logits, run(model, inputs), rtol=1e-4, atol=1e-4):
            return "wrong", "other logits than the model's"
    known = reference(sample, one)
    if sample.expected is None:
        change = (second.features - first.features).double() @ head.weight.mT
        wanted = (second.logits - first.logits).double()
        size = change.abs().max() + wanted.abs().max() + first.logits.abs().max() * 1e-3
        if float((change - wanted).abs().max() / size) > 1e-3:
            return "wrong", "the logits change by something else than W dz"
    difference = "" if known is None else compare(space, first, known)
    if difference:
        return "wrong", difference
    compared = "" if known is None else ", compared"
    layer = space.notes()["layer"]
    return "right", f"{layer}, d = {head.num_features}, domain {space.domain.kind}{compared}"


def work(build: Callable[[], Sample], results: Connection) -> None:
    """Send the outcome of one model; the body of its process."""
    resource.setrlimit(resource.RLIMIT_DATA, (BYTES, BYTES))
    try:
        sample = build()
        run(sample.model.eval(), sample.draw(torch.Generator().manual_seed(0)))
    except Exception as error:
        results.send(("not built", f"{type(error).__name__}: {error}"))
        return
    try:
        results.send(judge(sample))
    except Exception as error:
        results.send(("crashed", f"{type(error).__name__}: {error}"))


def outcome_of(build: Callable[[], Sample]) -> tuple[str, str]:
    """Return the outcome of one model and why, from a process with limits."""
    context = multiprocessing.get_context("fork")
    receiver, sender = context.Pipe(duplex=False)
    process = context.Process(target=work, args=(build, sender), daemon=True)
    process.start()
    sender.close()
    try:
        if receiver.poll(SECONDS):
            return receiver.recv()
        return "crashed", f"no answer within {SECONDS} s"
    except EOFError:
        return "crashed", "its process ended"
    finally:
        process.kill()
        process.join()


def exceptions() -> dict[tuple[str, str], tuple[str, str]]:
    """Return the known outcome and its reason of models that count for nothing."""
    lines = EXCEPTIONS.read_text("utf-8").splitlines()
    parts = [line.split(maxsplit=3) for line in lines if line and not line.startswith("#")]
    return {(library, name): (outcome.replace("_", " "), why)
            for library, name, outcome, why in parts}  # fmt: skip


def main() -> int:
    """Print one line per model, and the counts."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--library", choices=[*SOURCES], action="append")
    parser.add_argument("--only", nargs="*", help="names of models")
    parser.add_argument("--part", default="0/1", help="i/n: every n-th model from the i-th on")
    parser.add_argument("--list", action="store_true", help="print the names for zoo_timm.txt")
    chosen = parser.parse_args()
    warnings.simplefilter("ignore")
    if chosen.list:
        print("\n".join(smallest_of_timm()))
        return 0
    torch.set_num_threads(1)
    part, parts = map(int, chosen.part.split("/"))
    known = exceptions()
    results: list[tuple[str, str, str, str]] = []
    for library in chosen.library or SOURCES:
        for number, (name, build) in enumerate(SOURCES[library]()):
            if number % parts != part or (chosen.only and name not in chosen.only):
                continue
            outcome, why = outcome_of(build)
            why = " ".join(why.split())[:400]
            results.append((library, name, outcome, why))
            print(f"{library:12s} {name:44s} {outcome:9s} {why}", flush=True)
    counts = summary(results, known)
    print(json.dumps({"benchmark": "zoo", **counts}))
    return int(counts["wrong"] > 0 or counts["share found"] < SHARE)


def summary(
    results: Iterable[tuple[str, str, str, str]], known: dict[tuple[str, str], tuple[str, str]]
) -> dict[str, Any]:
    """Return the counts of outcomes; "expected" are those listed as exceptions."""
    counts: dict[str, Any] = dict.fromkeys((*OUTCOMES, "expected"), 0)
    for library, name, outcome, _ in results:
        expected = known.get((library, name), ("", ""))[0] == outcome
        counts["expected" if expected else outcome] += 1
    tried = sum(counts[outcome] for outcome in OUTCOMES)
    return {"share found": round(counts["right"] / max(tried, 1), 4), **counts}


if __name__ == "__main__":
    sys.exit(main())
