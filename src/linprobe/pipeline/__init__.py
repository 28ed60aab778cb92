"""The engine: extract, fit, certify, evaluate and record, layer by layer."""
