"""Export tools: a policy as GGUF, a process reward model as ONNX, each with a measured account of the loss.

Imports ``solver`` and what is below it. PyTorch and transformers are imported inside functions or behind the extra.
"""
