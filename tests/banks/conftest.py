"""Fixtures of the tests of banks."""

from __future__ import annotations

import os

import pytest


@pytest.fixture(autouse=True)
def _no_fsync(monkeypatch: pytest.MonkeyPatch) -> None:
    """Skip fsync: it guards against a power failure, which no test can cause, and is slow."""
    monkeypatch.setattr(os, "fsync", lambda _: None)
