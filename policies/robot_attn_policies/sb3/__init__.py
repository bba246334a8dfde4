"""Plug-ins for Stable-Baselines3: features extractor, policy, PPO, vector environment."""
