"""Certified distances as torch modules that Captum can attribute."""
