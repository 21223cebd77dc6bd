"""Recipes that make a pack: data, policy fine-tuning, rollouts, PRM training, assembly.

Imports ``export`` and what that may import.
"""
