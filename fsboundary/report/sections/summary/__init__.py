"""Sections for a first look: what to do now, and the summary in words."""
