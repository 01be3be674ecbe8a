"""Image finders, one algorithm per file."""
