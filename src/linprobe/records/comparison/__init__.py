"""Comparison of runs: their curves, the distances between them, and labels that tell them apart."""
