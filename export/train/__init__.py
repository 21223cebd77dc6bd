"""Recipes that make a pack: data, policy fine-tuning, rollouts, PRM training, assembly.

May import ``export`` and whatever that may import.
"""
