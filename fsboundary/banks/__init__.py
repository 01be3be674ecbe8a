"""Sets of training features: in memory or on disk, behind one class."""

from fsboundary.banks.bank import FeatureBank
from fsboundary.banks.store import BankInfo

__all__ = ["BankInfo", "FeatureBank"]
