"""The section on the hull of the training set."""
