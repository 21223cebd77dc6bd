"""Backends of the contracts in ``core``: the llama.cpp engine, ONNX verifiers, the isolated child process, an endpoint
client, and scripted fakes.

Imports ``reasoning`` and ``core``.
"""
