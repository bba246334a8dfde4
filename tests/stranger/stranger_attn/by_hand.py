"""Registration without an installation: importing this module registers the task and the shift."""

from robot_attn_envs import register_shift, register_task

register_task("Stranger/ByHand-v0", "stranger_attn.lamp:Lamp")
register_shift("nightfall", "stranger_attn.dusk:Dusk")
