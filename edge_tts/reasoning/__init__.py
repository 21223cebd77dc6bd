"""How a policy is asked and how it reasons: prompts, the calculator, and what a step and an answer look like.

Imports ``answers`` and ``core``.
"""
