"""Banks on disk: the files, writing and reading them."""
