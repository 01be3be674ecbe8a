"""The built-in plugin: one idea a file."""
