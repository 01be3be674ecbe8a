"""The built-in plugin: one idea per file."""
