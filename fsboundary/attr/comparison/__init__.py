"""Agreement and behaviour of attributions."""
