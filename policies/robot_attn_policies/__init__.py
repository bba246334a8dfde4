"""Learning: Stable-Baselines3 policies that see through `robot_attn`, trained, saved and loaded safely.

Knows a task only by its spaces. Import from the modules: `vec_env`, `extractor`, `presets`, `train`,
`run_folder`, `evaluate`, `eyes`, `record`, `episodes`, `page`, `explain`, `report`. Nothing is imported here,
so that each costs what it needs.
"""
