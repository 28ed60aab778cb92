"""Measures linprobe's solver against others on the features of the paper's two networks.

``python -m benchmarks`` runs everything and writes ``docs/performance.md`` from what it measured.
"""
