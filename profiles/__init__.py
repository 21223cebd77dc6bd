"""Device profiles: what a device allows, how fast it is expected to be, and which profile fits this machine.

Imports ``files`` and ``errors``.
"""
