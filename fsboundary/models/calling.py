"""Model calls: wrappers removed, compiled code run eagerly, logits extracted from the output."""

from __future__ import annotations

import contextlib
import functools
import inspect
import sys
from collections.abc import Callable, Iterator, Mapping
from typing import Any, TypeVar, cast, final

import torch
from torch import Tensor, nn
from torch.utils import _pytree as pytree
from torch.utils._python_dispatch import TorchDispatchMode

from fsboundary.core.errors import HeadError

_Function = TypeVar("_Function", bound=Callable[..., Any])
_PARALLEL = (nn.DataParallel, nn.parallel.DistributedDataParallel)


def unwrap(model: nn.Module) -> nn.Module:
    """Return the module inside ``torch.compile`` and (Distributed)DataParallel wrappers."""
    while True:
        if isinstance(model, _PARALLEL):
            model = model.module
        elif _is_compiled(model):
            model = model._orig_mod  # type: ignore[assignment]  # an OptimizedModule stores it there
        else:
            return model


def _is_compiled(model: nn.Module) -> bool:
    # torch._dynamo takes seconds to import, and nothing is compiled before something imports it
    dynamo = sys.modules.get("torch._dynamo.eval_frame")
    return dynamo is not None and isinstance(model, dynamo.OptimizedModule)


def _set_stance() -> Any:
    return getattr(torch.compiler, "set_stance", None)  # torch 2.6 and later


@contextlib.contextmanager
def _force_eager() -> Iterator[None]:
    """Run compiled functions as plain Python, because compiled code may skip forward hooks.

    Before torch 2.6 this covers only a model compiled as a whole; a head inside a compiled part of
    a model may then be missed, which raises an error and never gives a wrong result.
    """
    stance = _set_stance()
    if stance is None or "torch._dynamo" not in sys.modules:
        yield
        return
    with stance("force_eager"):
        yield


def run_eagerly(function: _Function) -> _Function:
    """Return `function`, which code compiled by ``torch.compile`` then calls as plain Python.

    Hooks and solvers cannot be compiled. The compiler is imported only where it runs already,
    because that takes seconds.
    """

    @functools.wraps(function)
    def run(*args: Any, **kwargs: Any) -> Any:
        if torch.compiler.is_compiling():
            return torch.compiler.disable(function)(*args, **kwargs)
        return function(*args, **kwargs)

    return cast("_Function", run)


def call(
    model: nn.Module,
    inputs: Any,
    additional: tuple[Any, ...] = (),
    keywords: Mapping[str, Any] | None = None,
) -> Any:
    """Call an unwrapped `model`; errors that a wrong dtype may have caused get a hint.

    A mapping given as `inputs` is passed as keyword arguments and a tuple as several positional
    ones, unless the model's ``forward`` takes it as one argument only.
    """
    run: Any = model
    if _set_stance() is None and getattr(model, "_compiled_call_impl", None) is not None:
        run = model._call_impl  # the eager part of __call__, because no stance can select it
    args, named = call_arguments(model, inputs, additional, keywords or {})
    try:
        with _force_eager():
            return run(*args, **named)
    except RuntimeError as error:
        leaves = pytree.tree_leaves((args, named))
        dtypes = [x.dtype for x in leaves if isinstance(x, Tensor)]
        given = next((d for d in dtypes if d.is_floating_point), next(iter(dtypes), None))
        wanted = next((p.dtype for p in model.parameters() if p.is_floating_point()), given)
        # token ids are integers rightly, so that only an error about types points to them
        suspect = given is not None and (given.is_floating_point or "type" in str(error))
        if given != wanted and suspect:
            error.add_note(
                f"fsboundary: the inputs are {given} and the model's first weights are "
                f"{wanted}; if that is the cause, pass inputs.to({wanted})"
            )
        raise


def call_arguments(
    model: nn.Module, inputs: Any, additional: tuple[Any, ...], keywords: Mapping[str, Any]
) -> tuple[tuple[Any, ...], dict[str, Any]]:
    """Return the positional and keyword arguments with which `model` is called; see :func:`call`.

    The mapping or tuple is one argument where the signature of ``forward`` rejects the unpacked
    call and accepts the other.
    """
    named = dict(keywords)
    one = (inputs, *additional), named
    if isinstance(inputs, Mapping):
        several = additional, {**inputs, **named}
    elif isinstance(inputs, tuple):
        several = (*inputs, *additional), named
    else:
        return one
    return one if not accepts(model, *several) and accepts(model, *one) else several


def accepts(model: nn.Module, args: tuple[Any, ...], named: dict[str, Any]) -> bool:
    """Return whether the signature of the model's forward accepts the arguments, or is unknown."""
    try:
        signature = inspect.signature(model.forward)
    except (TypeError, ValueError):  # of a TorchScript module, for example
        return True
    try:
        signature.bind(*args, **named)
    except TypeError:
        return False
    return True


def require_eval_mode(module: nn.Module, what: str = "the model") -> None:
    """Raise HeadError if `module` or a submodule is in training mode, naming the first."""
    if not any(m.training for m in module.modules()):
        return
    name, first = next((n, m) for n, m in module.named_modules() if m.training)
    where = f"its submodule {name!r} ({type(first).__name__})" if name else type(first).__name__
    raise HeadError(
        f"{what} is in training mode ({where}), so its features depend on chance and on the rest "
        f"of the batch. Call .eval() on {what} first; fsboundary never changes the mode itself"
    )


_MODE_DEPENDENT = (
    nn.modules.dropout._DropoutNd,
    nn.modules.batchnorm._NormBase,
    nn.RReLU,
)
"""Torch layers that compute something else in training mode."""


def require_deterministic(module: nn.Module, what: str) -> None:
    """Raise HeadError if a mode-dependent layer of `module` is in training mode.

    A preprocessing module without such layers, for example a normalisation by constants, gives
    the same output in both modes, and users rarely call ``.eval()`` on it.
    """
    for layer in module.modules():
        if layer.training and isinstance(layer, _MODE_DEPENDENT):
            require_eval_mode(layer, what)


def chance_state(device: torch.device) -> tuple[Tensor, ...]:
    """Return the states of torch's global generators that a model on `device` draws from."""
    states = [torch.get_rng_state()]
    if device.type == "cuda":
        states.append(torch.cuda.get_rng_state(device))
    return tuple(states)


def has_drawn(before: tuple[Tensor, ...], after: tuple[Tensor, ...]) -> bool:
    """Return whether random numbers were drawn between two :func:`chance_state`."""
    return not all(map(torch.equal, before, after))


@final
class OperationNames(TorchDispatchMode):
    """Dispatch mode that collects operations that use chance, or statistics of the batch.

    Attributes
    ----------
    random, batch_norms : dict
        Names as keys, in the order of their first call.
    """

    def __init__(self) -> None:
        super().__init__()  # type: ignore[no-untyped-call]  # torch leaves it untyped
        self.random: dict[str, None] = {}
        self.batch_norms: dict[str, None] = {}

    @classmethod
    def _should_skip_dynamo(cls) -> bool:
        return False  # as for IntervalProver: torch would import its compiler

    def __torch_dispatch__(
        self,
        func: Any,
        types: Any,
        args: tuple[Any, ...] = (),
        kwargs: dict[str, Any] | None = None,
    ) -> Any:
        name = str(func).removeprefix("aten.").split(".")[0]
        tags = getattr(func, "tags", ())
        # attention and recurrent layers have the tag too, but draw only for their own dropout
        if torch.Tag.nondeterministic_seeded in tags and not name.startswith("_"):
            self.random[name] = None
        if "batch_norm" in name and any(a is True for a in args[5:6]):
            self.batch_norms[name] = None
        return func(*args, **(kwargs or {}))


def batch_statistics(model: nn.Module) -> list[str]:
    """Return the layers of `model` that use statistics of the batch in eval mode."""
    kind = nn.modules.batchnorm._BatchNorm
    return [
        f"{name!r} ({type(m).__name__}, track_running_stats=False)"
        for name, m in model.named_modules()
        if isinstance(m, kind) and m.running_mean is None
    ]


def extract_logits(output: Any, rows: int) -> Tensor:
    """Return the logits (B,K) in the output of a model for B = `rows` images.

    Raises
    ------
    HeadError
        No tensor of logits, or one of another shape; the message says what to return instead.
    """
    logits = _find_logits(output)
    if logits is None:
        raise HeadError(
            f"the model returned {_describe(output)}; wanted logits (B,K): a tensor, a tuple with "
            "a 2-D tensor, a mapping with 'logits' or an object with .logits. Wrap the model in a "
            "module that returns its logits"
        )
    if logits.ndim > 2 and logits[0].numel() == logits.shape[1] and logits.shape[0] == rows:
        logits = logits.flatten(1)
    shape = tuple(logits.shape)
    if logits.ndim == 1 and rows == 1 and shape[0] > 1:
        raise HeadError(
            f"the model returned shape {shape} for one image; wanted (1, K): it dropped the batch "
            "dimension, as .squeeze() does with a batch of one, which is also the last batch of 7 "
            "images in threes. Write .squeeze(1), .flatten(1) or .squeeze((-2, -1)) instead, so "
            "that the first dimension stays"
        )
    if (logits.ndim == 1 and shape[0] == rows) or (logits.ndim == 2 and shape[1] == 1):
        raise HeadError(
            f"the model returned a single logit per image (shape {shape}): a binary head. Turn its "
            "last linear layer into a two-class head, with 0 and the old logit as logits: "
            "model.fc = fsboundary.two_class_head(model.fc), with the layer's name in place of fc, "
            "and remove any squeeze or sigmoid after it"
        )
    if logits.ndim != 2 or shape[0] != rows:
        raise HeadError(
            f"the model returned shape {shape} for {rows} images; wanted ({rows}, K), one row of "
            "logits per image. For outputs per token, position or crop, wrap the model in a module "
            "that pools them before its last linear layer"
        )
    return logits


def _find_logits(output: Any) -> Tensor | None:
    if isinstance(output, Tensor):
        return output if output.ndim else None
    logits = output.get("logits") if isinstance(output, Mapping) else None
    logits = getattr(output, "logits", None) if logits is None else logits
    if isinstance(logits, Tensor):
        return logits
    if isinstance(output, tuple | list):
        tensors = [t for t in output if isinstance(t, Tensor) and t.is_floating_point()]
        return next((t for t in tensors if t.ndim == 2), next(iter(tensors), None))
    return None


def _describe(output: Any) -> str:
    if isinstance(output, Mapping):
        return f"a {type(output).__name__} with keys {sorted(map(str, output))}"
    if isinstance(output, tuple | list):
        return f"a {type(output).__name__} of {[type(part).__name__ for part in output]}"
    return f"a {type(output).__name__}"
