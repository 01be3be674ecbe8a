"""Hull solvers, one a file."""
