"""Models: how they are called, and how their heads are found and verified."""
