"""Export tools: a policy becomes GGUF, a process reward model ONNX, and what that lost is measured.

May import ``solver`` and whatever is below it. Needs the extra ``export`` (PyTorch, transformers).
"""
