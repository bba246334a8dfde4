"""Tasks in MuJoCo for policies that see: batch physics, batch camera, ground truth of what is where.

Importing this package registers the tasks with Gymnasium:

    import gymnasium, robot_attn_envs

    env = gymnasium.make("RobotAttn/Track-v0", masks=True)
    envs = gymnasium.make_vec("RobotAttn/Track-v0", num_envs=24)
"""

import gymnasium

# Task id -> where its class is. A new task is one file and one line here.
TASKS = {
    "RobotAttn/Track-v0": "robot_attn_envs.tasks.track:Track",
    "RobotAttn/Reach-v0": "robot_attn_envs.tasks.reach:Reach",
    "RobotAttn/Navigate-v0": "robot_attn_envs.tasks.navigate:Navigate",
    "RobotAttn/Push-v0": "robot_attn_envs.tasks.push:Push",
}

for _id, _task in TASKS.items():
    gymnasium.register(
        _id,
        entry_point="robot_attn_envs.make:make_env",
        vector_entry_point="robot_attn_envs.make:make_batch",
        kwargs={"task": _task},
    )

__all__ = ["TASKS"]
