"""Estimators and networks of other libraries."""
