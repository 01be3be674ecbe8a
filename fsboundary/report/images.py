"""Images from an ``.npz`` file or a folder."""

from __future__ import annotations

from pathlib import Path

from fsboundary.core.errors import DataError
from fsboundary.report.archive import read_archive
from fsboundary.report.folder import read_folder
from fsboundary.report.image_set import ImageSet


def load_images(path: Path) -> ImageSet:
    """Read images.

    Parameters
    ----------
    path : Path
        An ``.npz`` file with ``images`` (N,C,H,W) or (N,H,W), uint8 or floating point in [0, 1],
        and perhaps ``labels``, ``class_names``, ``train_images`` and ``train_labels``; or a folder
        of image files of one size, in which subfolders, if any, are the classes in sorted order.

    Raises
    ------
    DataError
        The file or folder is not there or not as above; the message says what to mend.
    """
    if path.is_dir():
        return read_folder(path)
    if not path.is_file():
        raise DataError(f"{path}: no such file or folder. Check the path")
    return read_archive(path)
