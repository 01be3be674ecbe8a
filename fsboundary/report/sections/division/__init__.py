"""Section on the decision regions."""
