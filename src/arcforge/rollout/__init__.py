"""Attempts at tasks become trajectories; groups of attempts; their append-only record."""
