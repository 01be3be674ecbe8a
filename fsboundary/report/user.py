"""The report on a user's own model and images.

The model comes from the name of a factory function, its weights from a file.
"""

from __future__ import annotations

import contextlib
import importlib
import itertools
import sys
from collections.abc import Iterator
from difflib import get_close_matches
from pathlib import Path
from typing import Any

from torch import nn

from fsboundary import plugins
from fsboundary.core.errors import ArgumentError, DataError, FsboundaryError
from fsboundary.core.files import check_outputs
from fsboundary.report.inputs.loading import ImageSet, load_images, source_files
from fsboundary.report.inputs.weights import join_keys, load_weights
from fsboundary.report.measurements import Subject
from fsboundary.report.page import write_report
from fsboundary.space import FeatureSpace


def run_report(
    *,
    model: str,
    weights: Path | None,
    data: Path,
    out: Path,
    json_path: Path | None = None,
    finder: str = "dual_newton",
    finder_options: dict[str, Any] | None = None,
    hull_solver: str = "active_set",
    hull_options: dict[str, Any] | None = None,
    extractor: str = "head_input",
    extractor_options: dict[str, Any] | None = None,
    batch_size: int = 256,
    module_folder: Path | None = None,
    force: bool = False,
    show_progress: bool = True,
) -> Path:
    """Study a model on images and write the report.

    Parameters
    ----------
    model : str
        ``package.module:factory``: an importable function that is callable without arguments and
        returns the model, which takes pixels in [0, 1]. It is put in evaluation mode.
    weights : Path or None
        Safetensors file, or a .pt, .pth or .bin file of a state dict
        (:func:`fsboundary.report.inputs.weights.load_weights`); with None, the model keeps the
        weights of the factory.
    data : Path
        Images: an ``.npz`` file or a folder
        (:func:`fsboundary.report.inputs.loading.load_images`).
    out : Path
        HTML file to write.
    json_path : Path, optional
        JSON file for the numbers.
    finder : str
        Name of a boundary finder that ``fsboundary plugins`` lists.
    finder_options : dict, optional
        Arguments of its constructor.
    hull_solver : str
        Name of a hull solver that ``fsboundary plugins`` lists; used if `data` contains training
        images.
    hull_options : dict, optional
        Arguments of its constructor.
    extractor : str
        Name of a feature extractor that ``fsboundary plugins`` lists; an extractor that must be
        fitted is fitted on the training images, or on the images if there are none.
    extractor_options : dict, optional
        Arguments of its constructor.
    batch_size : int
        Number of images per forward pass.
    module_folder : Path, optional
        Folder that is searched for modules after all others, while the factory is imported and
        called.
    force : bool
        Whether files that fsboundary did not write may be replaced. Earlier reports always may,
        and inputs never: `data`, `weights` and the files of imported modules.
    show_progress : bool
        Whether to show a progress bar of the stages.

    Returns
    -------
    Path
        `out`.

    Raises
    ------
    ArgumentError, DataError, HeadError
        The model, weights, images or files are not as described above; raised before any long
        work. DataError also if the report could not be written, for example because the disk is
        full; files that were there are unchanged.
    """
    outputs = {"out": out, "json_path": json_path}
    check_outputs(outputs, inputs=_input_files(data, weights), force=force)
    finder_plugin = plugins.create("boundary_finder", finder, options=finder_options)
    solver_plugin = plugins.create("hull_solver", hull_solver, options=hull_options)
    extractor_plugin = plugins.create("feature_extractor", extractor, options=extractor_options)
    images = load_images(data)
    network = build_model(model, module_folder)
    check_outputs(outputs, inputs=_input_files(data, weights), force=force)  # now with its modules
    if weights is not None:
        load_weights(network, weights)
    space = FeatureSpace(network.eval(), extractor=extractor_plugin)
    classes = count_classes(space, network, images, data, batch_size)
    images.verify_classes(classes, data)
    subject = Subject(
        space=space,
        images=images.images,
        labels=images.labels,
        class_names=images.class_names or tuple(f"class {k}" for k in range(classes)),
        file_names=images.file_names,
        train_images=images.train_images,
        train_labels=images.train_labels,
        finder=finder_plugin,
        hull_solver=solver_plugin,
        batch_size=batch_size,
        title=f"{model.partition(':')[2]} on {data.name}",
        facts={
            "model": model,
            "weights": "those of the factory" if weights is None else weights.name,
            "images": data.name,
        },
    )
    return write_report(subject, out, json_path=json_path, force=force, show_progress=show_progress)


def _input_files(data: Path, weights: Path | None) -> Iterator[Path]:
    """Yield the files that a report is made from, those of imported modules included."""
    yield from source_files(data)
    if weights is not None:
        yield weights
    for module in list(sys.modules.values()):
        file = getattr(module, "__dict__", {}).get("__file__")
        if isinstance(file, str):
            yield Path(file)


def count_classes(
    space: FeatureSpace, model: nn.Module, images: ImageSet, data: Path, batch_size: int
) -> int:
    """Return the number of classes from a forward pass of one image of each set."""
    fit_on = images.images if images.train_images is None else images.train_images
    for part in (images.images, images.train_images):
        if part is None:
            continue
        try:
            if space.surrogate and space.fidelity is None:
                space.fit(fit_on.split(batch_size))
            space.extract(part[:1])
        except FsboundaryError:
            raise
        except Exception as error:
            raise DataError(
                f"{data}: the model ({type(model).__name__}) does not accept images of shape "
                f"{tuple(part.shape[1:])}: {error}. Check their size and channels"
                f"{images.remark and f': {images.remark}'}"
            ) from error
    return space.head.num_classes


MODEL_FORMAT = (
    "package.module:factory, a function that returns the model when called without arguments"
)


def build_model(spec: str, folder: Path | None = None) -> nn.Module:
    """Import and call a factory.

    Parameters
    ----------
    spec : str
        ``package.module:factory``; the factory may be a dotted name, such as ``Class.method``.
    folder : Path, optional
        Folder that is searched for modules after all others, and only during this call.

    Returns
    -------
    nn.Module
        The model, unchanged.

    Raises
    ------
    ArgumentError
        The module or the factory does not exist, raises or exits, or the result is not a module
        or has parameters or buffers on the meta device.
    """
    module_name, colon, path = spec.partition(":")
    if not (module_name and colon and path):
        raise ArgumentError(
            "model", repr(spec), MODEL_FORMAT, "put a colon before the function's name"
        )
    with _searched_last(folder):
        factory = _get_attribute(_import(module_name), module_name, path)
        if isinstance(factory, nn.Module) or not callable(factory):
            got = f"{spec}, {_describe_type(factory)}"
            fix = "wrap it in a function that returns the model"
            raise ArgumentError("model", got, MODEL_FORMAT, fix)
        try:
            model = factory()
        except KeyboardInterrupt:
            raise
        except BaseException as error:  # foreign code may call sys.exit
            got = f"{spec}, which raised {type(error).__name__}: {error}"
            fix = "give every argument a default, or name a function that does"
            raise ArgumentError("model", got, MODEL_FORMAT, fix) from error
    if not isinstance(model, nn.Module):
        got = f"{spec}, which returned {_describe_type(model)}"
        raise ArgumentError("model", got, MODEL_FORMAT, "return a torch.nn.Module")
    stored = itertools.chain(model.named_parameters(), model.named_buffers())
    empty = [name for name, tensor in stored if tensor.device.type == "meta"]
    if empty:  # weights would be loaded into them without an error, and without an effect
        got = f"{spec}, whose model has {join_keys(empty)} on the meta device, which stores nothing"
        fix = 'make it outside torch.device("meta") and without init_empty_weights()'
        raise ArgumentError("model", got, MODEL_FORMAT, fix)
    return model


@contextlib.contextmanager
def _searched_last(folder: Path | None) -> Iterator[None]:
    """Let modules be found in `folder` too, after all other places, within this context.

    First, or for longer, a file beside the data could take the place of an installed module.
    """
    if folder is None:
        yield
        return
    entry = str(folder.absolute())
    sys.path.append(entry)
    try:
        yield
    finally:
        if entry in sys.path:  # which the factory may have changed
            del sys.path[len(sys.path) - 1 - sys.path[::-1].index(entry)]


def _import(name: str) -> Any:
    try:
        return importlib.import_module(name)
    except KeyboardInterrupt:
        raise
    except ModuleNotFoundError as error:
        if error.name is None or not f"{name}.".startswith(f"{error.name}."):
            raise _import_error(name, error) from error
        got = f"the module {name!r}, but there is no {error.name!r}"
        fix = (
            "install it, or run this command in the folder that contains it; rename it if an "
            "installed package, which is found first, has its name"
        )
        raise ArgumentError("model", got, "a module that can be imported", fix) from error
    except BaseException as error:
        raise _import_error(name, error) from error


def _import_error(name: str, error: BaseException) -> ArgumentError:
    got = f"the module {name!r}, whose import raised {type(error).__name__}: {error}"
    fix = "fix the module or install what it needs"
    return ArgumentError("model", got, "a module that can be imported", fix)


def _get_attribute(module: Any, module_name: str, path: str) -> Any:
    owner = module
    for name in path.split("."):
        try:
            owner = getattr(owner, name)
        except AttributeError as error:
            close = get_close_matches(name, dir(owner), n=1)
            fix = f"use {close[0]!r}, the closest name" if close else "check the name"
            where = f"{module_name} is {getattr(module, '__file__', None) or 'built in'}"
            got = f"{module_name}:{path}, but there is no {name!r} ({where})"
            raise ArgumentError("model", got, MODEL_FORMAT, fix) from error
        except Exception as error:  # a property may raise anything
            got = f"{module_name}:{path}, where {name!r} raised {type(error).__name__}: {error}"
            raise ArgumentError("model", got, MODEL_FORMAT, "name another function") from error
    return owner


def _describe_type(value: object) -> str:
    return f"an object of type {type(value).__name__}"
