"""From a loader of images to a bank of their features: in memory, or on disk and resumable."""

from fsboundary.space.bank_builder import build
from fsboundary.space.source import Source

__all__ = ["Source", "build"]
