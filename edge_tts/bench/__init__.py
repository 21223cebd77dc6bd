"""Measurements: studies of strategies and their report, the runtime's own speed, comparisons with other systems.

Imports ``solver``, ``export`` and what is below them; only ``commands.bench`` imports this.
"""
