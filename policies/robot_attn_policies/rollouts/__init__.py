"""Rollouts: run a policy in a batch of environments."""
