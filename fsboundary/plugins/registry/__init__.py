"""Loading, isolation and selection of plugins."""
