"""Benchmarks and hunts. A package, because pyarrow 17 installs another one of this name."""
