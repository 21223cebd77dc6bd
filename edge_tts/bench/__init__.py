"""Measurements whose records are committed: strategies side by side, and the runtime's own speed."""
