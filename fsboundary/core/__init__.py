"""Errors, statuses, domains, heads and results, on which all other modules build."""
