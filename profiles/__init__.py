"""Device profiles: what a device allows, how fast it is expected to be, and detection of this one.

Imports ``files`` and ``errors``.
"""
