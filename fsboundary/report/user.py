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
        ``package.module:factory``: importable, callable without arguments, returns the model,
        which takes pixels in [0, 1]. It is put in evaluation mode.
    weights : Path or None
        Safetensors file; None leaves the model as the factory made it.
    data : Path
        Images: an ``.npz`` file or a folder
        (:func:`fsboundary.report.loading.load_images`).
    out : Path
        The HTML file.
    json_path : Path, optional
        Where to write the numbers.
    finder : str
        A boundary finder that ``fsboundary plugins`` lists.
    finder_options : dict, optional
        Its constructor's arguments.
    hull_solver : str
        A hull solver that ``fsboundary plugins`` lists; used where `data` holds training images.
    hull_options : dict, optional
        Its constructor's arguments.
    extractor : str
        A feature extractor that ``fsboundary plugins`` lists; one that must be fitted is fitted on
        the training images, or on the images where there are none.
    extractor_options : dict, optional
        Its constructor's arguments.
    batch_size : int
        Images in one forward pass.
    show_progress : bool
        Show a bar of the stages.

    Returns
    -------
    Path
        `out`.

    Raises
    ------
    ArgumentError, DataError, HeadError
        Before any long work: the model, weights, images or files are not as above.
    """
    require_folders(out, json_path)
    chosen = plugins.create("boundary_finder", finder, options=finder_options)
    solver = plugins.create("hull_solver", hull_solver, options=hull_options)
    source = plugins.create("feature_extractor", extractor, options=extractor_options)
    images = load_images(data)
    network = build_model(model)
    if weights is not None:
        load_weights(network, weights)
    space = FeatureSpace(network.eval(), extractor=source)
    classes = _classes(space, network, images, data, batch_size)
    images.require_classes(classes, data)
    subject = Subject(
        space=space,
        images=images.images,
        labels=images.labels,
        class_names=images.class_names or tuple(f"class {k}" for k in range(classes)),
        file_names=images.file_names,
        train_images=images.train_images,
        train_labels=images.train_labels,
        finder=chosen,
        hull_solver=solver,
        batch_size=batch_size,
        title=f"{model.partition(':')[2]} on {data.name}",
        facts={
            "model": model,
            "weights": "as the factory made them" if weights is None else weights.name,
            "images": data.name,
        },
    )
    return write_report(subject, out, json_path=json_path, show_progress=show_progress)


def _classes(
    space: FeatureSpace, model: nn.Module, images: ImageSet, data: Path, batch_size: int
) -> int:
    """Return the number of classes, found by a forward pass of one image of each set."""
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
                f"{data}: the model ({type(model).__name__}) does not take images of shape "
                f"{tuple(part.shape[1:])}: {error}. Check their size and channels"
            ) from error
    return space.head.num_classes
