"""Solvers of a softmax regression; each sees only the problem's methods."""
