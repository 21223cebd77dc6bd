"""Packs and the models in them: manifest, finding, building, assembling, verifying, and the built-in pack.

Imports ``planning``, ``search`` (strategy tables), ``reasoning``, ``files`` and ``core``.
"""
