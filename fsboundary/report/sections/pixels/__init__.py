"""Section on boundaries in pixel space."""
