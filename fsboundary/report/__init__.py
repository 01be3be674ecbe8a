"""Reports: a study, its numbers as plain Python, and one HTML file."""
