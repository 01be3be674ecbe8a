"""The section on attributions."""
