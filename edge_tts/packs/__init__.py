"""Packs and the models in them: find, build, assemble, check and install them; the built-in pack.

Imports ``planning``, ``search`` (strategy tables), ``reasoning``, ``files`` and ``core``.
"""
