"""Measurements: studies of strategies and their report, the runtime's own speed, a comparison with transformers."""
