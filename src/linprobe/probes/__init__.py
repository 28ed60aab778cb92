"""Kinds of probe: from features and labels to a fitted probe."""
