"""Pure float64 tensor mathematics, independent of models, images and files."""
