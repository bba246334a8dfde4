"""Playing episodes: one policy, a batch of environments, a step at a time."""
