"""The section on pixels."""
