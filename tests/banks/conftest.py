"""What the tests of banks share."""

from __future__ import annotations

import os

import pytest


@pytest.fixture(autouse=True)
def _no_waiting_for_the_disk(monkeypatch: pytest.MonkeyPatch) -> None:
    """Waiting guards against a loss of power, which no test can cause, and takes most time."""
    monkeypatch.setattr(os, "fsync", lambda _: None)
