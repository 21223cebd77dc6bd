"""What fits a memory cap and a deadline, from model shapes, and how fast this device is.

Imports ``runtimes.graph_metadata``, ``profiles``, ``files`` and ``core``; loads no model.
"""
