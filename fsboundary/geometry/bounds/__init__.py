"""Sets of pixels, relaxations of activations, and the rounding of linear bounds."""
