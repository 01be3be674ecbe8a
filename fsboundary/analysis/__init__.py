"""Uses: what feature space and pixels say of the same images."""
