"""The section on planes through feature space."""
