"""Facts about a feature space, as text for a report."""

from __future__ import annotations

from torch import Tensor

from fsboundary.models.linear_maps import Residual
from fsboundary.space.fidelity import Fidelity


def space_notes(
    notes: dict[str, str],
    *,
    domain: str,
    given: bool,
    residual: Residual | None,
    fidelity: Fidelity | None,
    minimum: Tensor | None,
) -> dict[str, str]:
    """Return the notes of an extractor with those of its space.

    Parameters
    ----------
    notes : dict
        Notes of the extractor.
    domain : str
        Kind of the domain.
    given : bool
        Whether the user chose the domain.
    residual, fidelity, minimum : object or None
        Largest residual of the head, fidelity of a fitted one and smallest feature, where known.
    """
    notes = dict(notes)
    proof = notes.pop("proof", "")
    if residual is not None:
        notes["residual"] = f"{residual.size:.3g} (tolerance {residual.tolerance:.3g})"
    if given:
        how = "given by the user"
    elif domain == "unbounded":
        how = "nothing in the model's structure proves more"
    else:
        how = f"proved by the model's structure: {proof}" if proof else "by the extractor"
    notes["domain"] = f"{domain} ({how})"
    if fidelity is not None:
        notes["fidelity"] = str(fidelity)
    if minimum is not None:
        low = float(minimum)
        seen = "no negative feature was seen" if low >= 0 else "negative features were seen"
        notes["observed minimum"] = f"{low:.6g} ({seen})"
    return notes
