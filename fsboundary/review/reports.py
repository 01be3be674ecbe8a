"""Comparison of reports: what the JSON files of two or more models on the same images differ in."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any, final

import torch

from fsboundary.core.errors import DataError
from fsboundary.core.files import GENERATOR, printable
from fsboundary.report.page import SCHEMA
from fsboundary.scores.set_scores import wilson_interval

LISTED = 20
"""Number of changed images, and of pairs of classes, that the text lists per report."""


@final
class Report:
    """The numbers of one report.

    Parameters
    ----------
    path : Path
        JSON file of ``fsboundary report`` or ``fsboundary demo``.

    Raises
    ------
    DataError
        No such file, or none of a report.
    """

    def __init__(self, path: Path) -> None:
        self.path, self.name = path, printable(path.name)
        try:
            numbers = json.loads(path.read_bytes())
        except OSError as error:
            raise DataError(f"{path}: cannot be read ({error.strerror})") from error
        except ValueError as error:
            raise DataError(f"{path}: no JSON ({error}). {_FIX}") from error
        if not isinstance(numbers, dict) or numbers.get("generator") != GENERATOR:
            raise DataError(f"{path}: no numbers of a report. {_FIX}")
        if numbers.get("schema") != SCHEMA:
            raise DataError(
                f"{path}: schema {numbers.get('schema')!r}; this version reads {SCHEMA}. {_FIX}"
            )
        try:
            self.class_names: list[str] = [str(name) for name in numbers["class_names"]]
            self.images = {
                _key(entry): (int(entry["predicted"]), entry["label"])
                for entry in numbers["extremes"]["all"]
            }
            self.rows = len(numbers["extremes"]["all"])
            self.pairs = {
                (int(cell["pair"][0]), int(cell["pair"][1])): str(cell["whole"])
                for cell in numbers["division"]["cells"]
            }
            self.distance = numbers["overview"]["distance"]["median"]
            self.spread = numbers["overview"]["feature_spread"]
        except (KeyError, TypeError, ValueError, IndexError) as error:
            raise DataError(f"{path}: the numbers of a report are not complete. {_FIX}") from error


_FIX = "Write it with `fsboundary report --json numbers.json`"


def _key(entry: dict[str, Any]) -> str | int:
    """Return the name of the file of an image, or its row where it has none."""
    return int(entry["row"]) if entry["file"] is None else str(entry["file"])


def compare_reports(paths: Sequence[Path]) -> dict[str, Any]:
    """Return what reports of several models on the same images differ in.

    Parameters
    ----------
    paths : sequence of Path
        Two or more JSON files; the first is the one that the others are compared with.

    Returns
    -------
    dict
        ``images``, their number, ``class_names``, and ``reports``, one dict per file: its accuracy
        with a 95 % Wilson interval, its median flip distance relative to the spread of the
        features, and, except for the first, the images whose prediction ``changed`` and the pairs
        of classes ``gained`` and ``lost`` as neighbours. Images are matched by the names of their
        files, or by their rows where they have none.

    Raises
    ------
    DataError
        A file that is no report, or reports of other classes, images or labels.
    """
    reports = [Report(path) for path in paths]
    first = reports[0]
    common = [key for key in first.images if all(key in one.images for one in reports)]
    for one in reports[1:]:
        if one.class_names != first.class_names:
            raise DataError(
                f"{one.path}: its classes are {', '.join(one.class_names[:5])}, those of "
                f"{first.path} are {', '.join(first.class_names[:5])}. Compare models of the same "
                "classes in the same order"
            )
        if isinstance(next(iter(first.images), 0), int) and one.rows != first.rows:
            raise DataError(
                f"{one.path}: {one.rows} images without file names, {first.path} has "
                f"{first.rows}. Compare reports on the same images"
            )
        other = next((k for k in common if one.images[k][1] != first.images[k][1]), None)
        if other is not None:
            raise DataError(
                f"{one.path}: image {other} has label {one.images[other][1]}, in {first.path} "
                f"{first.images[other][1]}. Compare reports on the same images"
            )
    if not common:
        raise DataError(
            f"{reports[1].path}: no image of {first.path}. Compare reports on the same images"
        )
    return {
        "images": len(common),
        "class_names": first.class_names,
        "reports": [_facts(one, first, common) for one in reports],
    }


def _facts(one: Report, first: Report, common: Sequence[str | int]) -> dict[str, Any]:
    """Return the numbers of one report, beside those of the first."""
    right = [one.images[k][0] == one.images[k][1] for k in common if one.images[k][1] is not None]
    accuracy = sum(right) / len(right) if right else None
    interval = [None, None]
    if accuracy is not None:
        interval = wilson_interval(torch.tensor(accuracy).double(), len(right)).tolist()
    relative = None
    if isinstance(one.distance, float) and isinstance(one.spread, float) and one.spread > 0:
        relative = one.distance / one.spread
    changed = [
        {
            "image": key,
            "label": one.images[key][1],
            "before": first.images[key][0],
            "after": one.images[key][0],
        }
        for key in common
        if one.images[key][0] != first.images[key][0]
    ]
    both = [pair for pair in first.pairs if pair in one.pairs]
    before, after = first.pairs, one.pairs
    return {
        "name": one.name,
        "labelled": len(right),
        "accuracy": accuracy,
        "interval": interval,
        "relative_distance": relative,
        "changed": changed,
        "pairs": len(both),
        "gained": [list(p) for p in both if before[p] == "none" and after[p] == "facet"],
        "lost": [list(p) for p in both if before[p] == "facet" and after[p] == "none"],
    }


def comparison_text(numbers: dict[str, Any]) -> str:
    """Return the comparison as text, for a terminal."""
    names = numbers["class_names"]
    lines = [f"{numbers['images']:,} images in common"]
    for index, one in enumerate(numbers["reports"]):
        lines += ["", one["name"]]
        if one["accuracy"] is not None:
            low, high = (f"{100 * end:.1f}" for end in one["interval"])
            share = f"{100 * one['accuracy']:.2f} % of {one['labelled']:,} labelled images"
            lines.append(f"  accuracy: {share} (95 % interval {low} to {high})")
        if one["relative_distance"] is not None:
            lines.append(
                f"  median flip distance: {one['relative_distance']:.3g} spreads of the features"
            )
        if index:
            lines += _changes(one, names)
    note = (
        "Distances in feature space say nothing about which model is more robust to changes of "
        "pixels: fsboundary.compare_models does."
    )
    return "\n".join([*lines, "", note])


def _changes(one: dict[str, Any], names: Sequence[str]) -> list[str]:
    """Return lines on images and pairs of classes that differ from the first report."""
    changed, kinds = one["changed"], {"fixed": 0, "broken": 0, "wrong in both": 0, "no label": 0}
    for entry in changed:
        kinds[_kind(entry)] += 1
    words = ", ".join(f"{number:,} {kind}" for kind, number in kinds.items() if number)
    lines = [f"  predicted differently: {len(changed):,} images{f' ({words})' if words else ''}"]
    lines += [
        f"    {printable(str(entry['image']))}: {_name(names, entry['before'])} -> "
        f"{_name(names, entry['after'])} ({_kind(entry)})"
        for entry in changed[:LISTED]
    ]
    lines += [f"    and {len(changed) - LISTED:,} more"] * (len(changed) > LISTED)
    for what in ("gained", "lost"):
        pairs = one[what]
        shown = "; ".join(f"{_name(names, i)} and {_name(names, j)}" for i, j in pairs[:LISTED])
        more = f"; {len(pairs) - LISTED:,} more" if len(pairs) > LISTED else ""
        lines.append(
            f"  neighbouring classes {what}: {len(pairs)} of {one['pairs']} pairs"
            + (f": {shown}{more}" if pairs else "")
        )
    return lines


def _kind(entry: dict[str, Any]) -> str:
    if entry["label"] is None:
        return "no label"
    if entry["after"] == entry["label"]:
        return "fixed"
    return "broken" if entry["before"] == entry["label"] else "wrong in both"


def _name(names: Sequence[str], number: int) -> str:
    return names[number] if 0 <= number < len(names) else "none"
