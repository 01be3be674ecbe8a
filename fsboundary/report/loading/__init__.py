"""A user's own model, weights and images, read with errors that say what to mend."""
