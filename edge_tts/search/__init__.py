"""The search for one question: strategies, one driver that carries them out, difficulty, the strategy table, selection.

Imports ``reasoning``, ``answers`` and ``core``; never a backend.
"""
