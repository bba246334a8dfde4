"""Training: presets, the loop, run folders, exact resume."""
