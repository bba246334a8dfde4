"""Inspecting a policy: what it attends to, and whether that drives its actions."""
