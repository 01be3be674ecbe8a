"""The report on a user's own model and images."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from torch import nn

from fsboundary import plugins
from fsboundary.core.errors import DataError, FsboundaryError
from fsboundary.report.loading import ImageSet, build_model, load_images, load_weights
from fsboundary.report.measurements import Subject
from fsboundary.report.page import require_folders, write_report
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
    show_progress: bool = True,
) -> Path:
    """Study a model on images and write the report.

    Parameters
    ----------
    model : str
        ``package.module:factory``: an importable function that is callable without arguments and
        returns the model, which takes pixels in [0, 1]. It is put in evaluation mode.
    weights : Path or None
        Safetensors file; with None, the model keeps the weights of the factory.
    data : Path
        Images: an ``.npz`` file or a folder
        (:func:`fsboundary.report.loading.load_images`).
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
        work.
    """
    require_folders(out, json_path)
    finder_plugin = plugins.create("boundary_finder", finder, options=finder_options)
    solver_plugin = plugins.create("hull_solver", hull_solver, options=hull_options)
    extractor_plugin = plugins.create("feature_extractor", extractor, options=extractor_options)
    images = load_images(data)
    network = build_model(model)
    if weights is not None:
        load_weights(network, weights)
    space = FeatureSpace(network.eval(), extractor=extractor_plugin)
    classes = _count_classes(space, network, images, data, batch_size)
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
    return write_report(subject, out, json_path=json_path, show_progress=show_progress)


def _count_classes(
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
            ) from error
    return space.head.num_classes
