"""Whether two answers mean the same: plain numbers by exact arithmetic, formulas by math-verify.

Imports nothing of the package but ``errors`` and ``cancellation``.
"""
