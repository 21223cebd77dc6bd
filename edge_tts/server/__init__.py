"""OpenAI-compatible HTTP server around a solver.

Imports ``solver`` and what is below it; only ``commands.serve`` imports this.
"""
