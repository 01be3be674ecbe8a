"""The head of a model, from traced passes: affine end, composition, verification."""
