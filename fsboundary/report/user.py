"""The report on a user's own model and images.

The model comes from the name of a factory function, its weights from a file.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

from fsboundary import plugins
from fsboundary.core.files import check_outputs
from fsboundary.report.inputs.given import Given
from fsboundary.report.measurements import Subject
from fsboundary.report.page import write_report


def run_report(
    *,
    model: str,
    weights: Path | None,
    data: Path,
    out: Path,
    train: Path | None = None,
    preprocess: str | None = None,
    head: str | None = None,
    domain: str = "auto",
    labels: Path | None = None,
    size: str | None = None,
    class_names: Path | None = None,
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
    train : Path, optional
        Training images: a file or folder as `data`.
    preprocess : str, optional
        ``package.module:factory`` of a function that returns what turns pixels in [0, 1] into the
        inputs of the model: a module, or a differentiable function.
    head : str, optional
        Dotted name of the last linear layer; found by default.
    domain : str
        "auto", "unbounded" or "nonnegative", as for :class:`~fsboundary.FeatureSpace`.
    labels : Path, optional
        Labels of the images (:func:`fsboundary.report.inputs.names.read_labels`), instead of those
        of `data`.
    size : str, optional
        Size for all images: ``224``, or ``256:224`` to resize to 256 and crop 224
        (:func:`fsboundary.report.inputs.sizes.parse_size`).
    class_names : Path, optional
        Names of all classes in the model's order
        (:func:`fsboundary.report.inputs.names.read_class_names`). Labels with names, such as
        subfolders, are mapped by name.
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
    given = Given(
        model=model,
        data=data,
        weights=weights,
        train=train,
        preprocess=preprocess,
        head=head,
        domain=domain,
        labels=labels,
        size=size,
        class_names=class_names,
        extractor=extractor,
        extractor_options=extractor_options or {},
        batch_size=batch_size,
        module_folder=module_folder,
    )
    check_outputs(outputs, inputs=given.files(), force=force)
    finder_plugin = plugins.create("boundary_finder", finder, options=finder_options)
    solver_plugin = plugins.create("hull_solver", hull_solver, options=hull_options)
    inputs = given.read()
    check_outputs(outputs, inputs=given.files(), force=force)  # now with the modules of the model
    images, training = inputs.images, inputs.training
    subject = Subject(
        space=inputs.space,
        images=images.images,
        labels=images.labels,
        class_names=inputs.class_names,
        file_names=images.file_names,
        train_images=images.train_images if training is None else training.images,
        train_labels=images.train_labels if training is None else training.labels,
        finder=finder_plugin,
        hull_solver=solver_plugin,
        batch_size=batch_size,
        title=f"{model.partition(':')[2]} on {data.name}",
        facts=_facts(given),
    )
    return write_report(subject, out, json_path=json_path, force=force, show_progress=show_progress)


def _facts(given: Given) -> dict[str, str]:
    """Return what the page says about where the inputs come from."""
    facts = {
        "model": given.model,
        "weights": "those of the factory" if given.weights is None else given.weights.name,
        "images": given.data.name,
    }
    for name, path in (
        ("training images", given.train),
        ("labels", given.labels),
        ("class names", given.class_names),
    ):
        if path is not None:
            facts[name] = path.name
    if given.preprocess is not None:
        facts["preprocessing"] = given.preprocess
    if given.size is not None:
        facts["size"] = f"{given.size}, resized and cropped to the centre"
    return facts
