"""From a loader of images to a bank of their features: in memory, or on disk and resumable."""

from fsboundary.banking.build import build
from fsboundary.banking.source import Source

__all__ = ["Source", "build"]
