"""What plugs into Stable-Baselines3: extractor, policy, PPO, vector environment."""
