"""Rewards: rules, a generative judge with its rubric, an outcome reward model behind a callable, and their weighted sum."""
