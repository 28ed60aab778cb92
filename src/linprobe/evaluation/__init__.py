"""Evaluation of a probe's error: metrics, statistics, controls, description length."""
