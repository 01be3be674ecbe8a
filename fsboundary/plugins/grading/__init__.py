"""Every answer of a plugin is checked and graded here."""
