"""Section on attributions."""
