"""A family, a task and a visual shift that are not robot-attn's."""
