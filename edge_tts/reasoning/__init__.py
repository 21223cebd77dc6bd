"""How a policy is asked and how it reasons: prompts, programs, and what a step and an answer look like.

Imports ``answers`` and ``core``.
"""
