"""Handing questions over that a small model is unsure of: to a larger local model, or to an endpoint.

May import the solver and everything below it. :class:`EscalatingSolver` is a solver like any other.
"""
