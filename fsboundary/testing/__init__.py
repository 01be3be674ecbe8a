"""The public conformance suites for plugins."""
