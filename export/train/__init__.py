"""Recipes that make a pack: data, policy fine-tuning, rollouts, PRM training, assembly."""
