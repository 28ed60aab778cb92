"""Figures, page and terminal output of a run, from its record."""
