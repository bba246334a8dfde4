"""`robot-attn benchmark`: each benchmark is one file."""
