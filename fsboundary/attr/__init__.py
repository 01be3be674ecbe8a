"""Captum: distances that its methods can explain, and methods of our own."""
