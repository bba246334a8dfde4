"""A family, a task and a visual shift in another package than robot-attn."""
