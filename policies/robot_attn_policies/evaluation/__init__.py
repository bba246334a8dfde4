"""Evaluation: scores with confidence intervals, comparison of runs, learning curves."""
