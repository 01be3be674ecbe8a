"""Feature banks: sets of training features in memory, on disk or on a cluster."""

from fsboundary.banks.bank import FeatureBank
from fsboundary.banks.rows import map_rows
from fsboundary.banks.store import BankInfo

__all__ = ["BankInfo", "FeatureBank", "map_rows"]
