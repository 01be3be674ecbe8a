"""Section on the hull of the training set."""
