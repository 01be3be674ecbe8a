"""The demo's report."""

from __future__ import annotations

from pathlib import Path

from fsboundary import plugins
from fsboundary.demo.load import load_demo
from fsboundary.report.measurements import Subject
from fsboundary.report.page import write_report
from fsboundary.space import FeatureSpace

FINDER = "dual_newton"
HULL_SOLVER = "active_set"
BATCH_SIZE = 256


def run_demo(
    out: Path, *, json_path: Path | None = None, force: bool = False, show_progress: bool = True
) -> Path:
    """Study the included network on real images of clothes and write the report.

    Parameters
    ----------
    out : Path
        HTML file to write.
    json_path : Path, optional
        JSON file for the numbers.
    force : bool
        Whether files that fsboundary did not write may be replaced; earlier reports always may.
    show_progress : bool
        Whether to show a progress bar of the stages.

    Returns
    -------
    Path
        `out`.

    Raises
    ------
    ArgumentError
        A file cannot be written, or would replace one that is not a report; raised before any
        work.
    DataError
        The files could not be written; files that were there are unchanged.

    Examples
    --------
    >>> import tempfile
    >>> from pathlib import Path
    >>> import fsboundary as fsb
    >>> from fsboundary.demo import run_demo
    >>> taken = Path(tempfile.mkdtemp()) / "notes.html"
    >>> _ = taken.write_text("kept")
    >>> try:
    ...     run_demo(taken)
    ... except fsb.ArgumentError:  # a file that is there is replaced with force=True only
    ...     print(taken.read_text())
    kept
    """
    demo = load_demo()
    facts = demo.facts
    subject = Subject(
        space=FeatureSpace(demo.model, preprocess=demo.preprocess),
        images=demo.test_images,
        labels=demo.test_labels,
        class_names=demo.class_names,
        file_names=None,
        train_images=demo.train_images,
        train_labels=demo.train_labels,
        finder=plugins.create("boundary_finder", FINDER),
        hull_solver=plugins.create("hull_solver", HULL_SOLVER),
        batch_size=BATCH_SIZE,
        title="A small ResNet on Fashion-MNIST",
        facts={
            "network": (
                f"{type(demo.model).__name__}, {facts['parameters']:,} parameters, trained on all "
                f"60,000 training images ({facts['epochs']} epochs, seed {facts['seed']}, "
                f"torch {facts['torch']}): {100 * facts['test_accuracy']:.2f} % of all 10,000 "
                "test images classified correctly"
            ),
            "images": (
                f"Fashion-MNIST: {len(demo.test_images):,} of the test images and, for the class "
                f"means and the hull, {len(demo.train_images):,} of the training images, with the "
                "same number of images per class. Copyright 2017 Zalando SE, MIT licence"
            ),
        },
    )
    return write_report(subject, out, json_path=json_path, force=force, show_progress=show_progress)
