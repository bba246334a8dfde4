"""Vision-based robot tasks in MuJoCo: batched physics and rendering, with ground-truth target masks.

Importing this package registers the tasks with Gymnasium:

    import gymnasium, robot_attn_envs

    env = gymnasium.make("RobotAttn/Track-v0", masks=True)
    envs = gymnasium.make_vec("RobotAttn/Track-v0", num_envs=24)

The names below suffice to write a task or a visual shift in another package. `Task`, `Objects`, `Shift` and
others that need MuJoCo are imported on first use, so registering does not need MuJoCo.
"""

from importlib import import_module
from typing import TYPE_CHECKING, Any

from robot_attn_envs.registry import TASKS, register_installed, register_shift, register_task

if TYPE_CHECKING:
    from robot_attn_envs.anymujoco import CameraObservation, CameraVectorEnv
    from robot_attn_envs.env import BatchEnv, TaskEnv
    from robot_attn_envs.render.camera import BatchCamera
    from robot_attn_envs.render.scene import FreeCamera
    from robot_attn_envs.shifts import SHIFTS, SUITES, Shift
    from robot_attn_envs.tasks.objects import Objects, object_names
    from robot_attn_envs.tasks.rewards import linear_falloff
    from robot_attn_envs.tasks.task import SpaceRow, Task
    from robot_attn_envs.worlds import Worlds

# A task is one file and one line here: its id and the place of its class.
for _id, _task in (
    ("RobotAttn/Track-v0", "robot_attn_envs.tasks.track:Track"),
    ("RobotAttn/Reach-v0", "robot_attn_envs.tasks.reach:Reach"),
    ("RobotAttn/Navigate-v0", "robot_attn_envs.tasks.navigate:Navigate"),
    ("RobotAttn/Push-v0", "robot_attn_envs.tasks.push:Push"),
):
    register_task(_id, _task)

# A shift is one file and one line here, in the order in which they are applied.
for _name, _shift in (
    ("distractors", "robot_attn_envs.shifts._distractors:Distractors"),
    ("colors", "robot_attn_envs.shifts._colors:Colors"),
    ("lookalikes", "robot_attn_envs.shifts._lookalikes:Lookalikes"),
    ("background", "robot_attn_envs.shifts._background:Background"),
    ("lighting", "robot_attn_envs.shifts._lighting:Lighting"),
    ("camera", "robot_attn_envs.shifts._camera:Camera"),
    ("noise", "robot_attn_envs.shifts._noise:Noise"),
    ("occlusion", "robot_attn_envs.shifts._occlusion:Occlusion"),
):
    register_shift(_name, _shift)

register_installed()

_WHERE = {
    "BatchCamera": "robot_attn_envs.render.camera",
    "BatchEnv": "robot_attn_envs.env",
    "CameraObservation": "robot_attn_envs.anymujoco",
    "CameraVectorEnv": "robot_attn_envs.anymujoco",
    "FreeCamera": "robot_attn_envs.render.scene",
    "Objects": "robot_attn_envs.tasks.objects",
    "SpaceRow": "robot_attn_envs.tasks.task",
    "SHIFTS": "robot_attn_envs.shifts",
    "SUITES": "robot_attn_envs.shifts",
    "Shift": "robot_attn_envs.shifts",
    "Task": "robot_attn_envs.tasks.task",
    "TaskEnv": "robot_attn_envs.env",
    "Worlds": "robot_attn_envs.worlds",
    "linear_falloff": "robot_attn_envs.tasks.rewards",
    "object_names": "robot_attn_envs.tasks.objects",
}

__all__ = [
    "SHIFTS",
    "SUITES",
    "TASKS",
    "BatchCamera",
    "BatchEnv",
    "CameraObservation",
    "CameraVectorEnv",
    "FreeCamera",
    "Objects",
    "Shift",
    "SpaceRow",
    "Task",
    "TaskEnv",
    "Worlds",
    "linear_falloff",
    "object_names",
    "register_shift",
    "register_task",
]


def __getattr__(name: str) -> Any:
    if name in _WHERE:
        return getattr(import_module(_WHERE[name]), name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
