"""Hull solvers, one per file."""
