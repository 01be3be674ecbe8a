"""Base classes of results: tables of named tensors, and tables with a status per entry."""

from fsboundary.core.results.base.result import Result
from fsboundary.core.results.base.table import Table

__all__ = ["Result", "Table"]
