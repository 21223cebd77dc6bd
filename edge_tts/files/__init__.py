"""Files: atomic writes, JSON lines, checksums, data checked against types, GGUF, and where a user's data is stored.

Imports ``errors`` only.
"""
