"""Evaluation of any door: bounded runs, statistics with intervals, text tables."""
