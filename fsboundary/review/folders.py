"""Triage of folders of images with the user's own model, as ``fsboundary triage`` runs it."""

from __future__ import annotations

import dataclasses
import warnings
from pathlib import Path
from typing import final

import torch
from torch import Tensor
from torch.utils.data import DataLoader, Dataset

from fsboundary.core.errors import ArgumentError, ReportWarning
from fsboundary.core.files import check_outputs
from fsboundary.modes import caller_level
from fsboundary.report.inputs.given import Given
from fsboundary.report.inputs.loading import ImageSet
from fsboundary.report.sections.summary.advice import pixel_alerts
from fsboundary.report.sections.summary.input_statistics import input_statistics
from fsboundary.review.table import triage
from fsboundary.scores import Reference

SUFFIXES = (".csv", ".parquet", ".html")
"""Endings of the files that a triage can be written to."""


@final
class _Images(Dataset[tuple[Tensor, Tensor]]):
    """Images in memory, with labels and with names as ImageFolder of torchvision has them."""

    def __init__(self, images: ImageSet) -> None:
        self._images = images.images
        none = torch.full((len(images.images),), -1)
        self._labels = none if images.labels is None else images.labels
        if images.file_names is not None:
            self.samples = list(zip(images.file_names, self._labels.tolist(), strict=True))

    def __len__(self) -> int:
        return len(self._images)

    def __getitem__(self, index: int) -> tuple[Tensor, Tensor]:
        return self._images[index], self._labels[index]


def run_triage(
    *,
    model: str,
    weights: Path | None,
    data: Path,
    train: Path,
    out: Path,
    preprocess: str | None = None,
    head: str | None = None,
    domain: str = "auto",
    labels: Path | None = None,
    size: str | None = None,
    class_names: Path | None = None,
    reference: Path | None = None,
    rows: Path | None = None,
    pixels: bool = True,
    level: float = 0.05,
    batch_size: int = 256,
    module_folder: Path | None = None,
    force: bool = False,
    show_progress: bool = True,
) -> Path:
    """Compare images with the training images of a model, and write the table of suspects.

    Parameters
    ----------
    model, weights, batch_size, module_folder, force, show_progress : object
    preprocess, head, domain, labels, size, class_names : object
        As for :func:`fsboundary.report.user.run_report`.
    data, train : Path
        Images to examine, and training images: npz files or folders, with a subfolder per class
        where they have labels. The same path twice examines the training images themselves.
    out : Path
        File that ends in .csv, .parquet or .html.
    reference : Path, optional
        File of the reference: opened if it exists, else fitted and saved there.
    rows : Path, optional
        File for the rows while they are computed, with which an interrupted call continues.
    pixels : bool
        Whether to compute pixel margins.
    level : float
        p-value up to which a score is suspicious.

    Returns
    -------
    Path
        `out`.

    Raises
    ------
    ArgumentError, DataError, HeadError
        The model, weights, images or files are not as described above.

    Warns
    -----
    ReportWarning
        The pixels are not those that the model was trained with.
    """
    if out.suffix.lower() not in SUFFIXES:
        fix = "name a file such as suspects.csv"
        raise ArgumentError("out", str(out), f"a file that ends in {', '.join(SUFFIXES)}", fix)
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
        batch_size=batch_size,
        module_folder=module_folder,
    )
    check_outputs({"out": out}, inputs=given.files(), force=force)
    inputs = given.read()
    space, images, training = inputs.space, inputs.images, inputs.training
    if training is None:
        raise AssertionError("there is a path of training images")
    statistics = input_statistics(space, images.images, batch_size)
    for text in pixel_alerts(statistics and dataclasses.asdict(statistics)):
        warnings.warn(text, ReportWarning, stacklevel=caller_level())
    if reference is not None and reference.exists():
        known = Reference.open(reference)
    else:
        known = Reference.fit(
            space,
            DataLoader(_Images(training), batch_size=batch_size),
            "predicted" if training.labels is None else "both",
            path=reference,
            show_progress=show_progress,
        )
    found = triage(
        space,
        DataLoader(_Images(images), batch_size=batch_size),
        known,
        path=rows,
        training=data.resolve() == train.resolve(),
        pixels=pixels,
        level=level,
        show_progress=show_progress,
    )
    if out.suffix.lower() == ".csv":
        found.to_csv(out, force=force)
    elif out.suffix.lower() == ".parquet":
        found.to_parquet(out, force=force)
    else:
        found.to_html(
            out, class_names=inputs.class_names, title=f"Suspects in {data.name}", force=force
        )
    return out
