"""Scores with intervals: evaluation, comparison, curves."""
