"""Files that survive a crash: atomic folders, JSON lines, checksums, GGUF, and where user data lives.

Imports ``errors`` only.
"""
