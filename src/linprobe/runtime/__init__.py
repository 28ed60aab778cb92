"""Errors, files, randomness, memory, devices, threads, progress, text: what every room uses."""
