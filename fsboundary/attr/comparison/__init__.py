"""How far attributions agree."""
