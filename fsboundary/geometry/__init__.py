"""Pure float64 tensor mathematics: it never sees a model, an image or a file."""
