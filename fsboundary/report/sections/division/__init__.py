"""The section on how the space is divided."""
