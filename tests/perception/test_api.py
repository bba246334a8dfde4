"""The public names: a change of these is a change for everyone who imports the package."""

import subprocess
import sys

import robot_attn


def test_the_public_names() -> None:
    assert sorted(robot_attn.__all__) == [
        "Attended",
        "AttentionGrid",
        "AttentionMaps",
        "Episode",
        "EpisodeError",
        "FAMILIES",
        "Forcing",
        "MAX_TOKENS",
        "Percept",
        "Perception",
        "SCORES",
        "attend",
        "build",
        "build_score",
        "detokenize",
        "find_family",
        "forceable",
        "register_family",
        "to_channels_first",
        "to_float",
        "tokenize",
        "upsample_attention",
    ]
    assert all(hasattr(robot_attn, name) for name in robot_attn.__all__)
    assert robot_attn.Percept._fields == ("features", "attention")
    assert robot_attn.Attended._fields == ("values", "weights")
    assert sorted(robot_attn.families.BUILTIN_FAMILIES) == [
        "cnn",
        "dynamic",
        "hierarchical",
        "instruction",
        "keypoints",
        "local",
        "mask",
        "patches",
        "query",
        "self",
        "slots",
    ]
    assert sorted(robot_attn.SCORES) == ["cosine", "dot", "scaled_dot", "standardized"]


def test_importing_it_loads_no_simulator_and_no_rl() -> None:
    heavy = ["cv2", "gymnasium", "mujoco", "stable_baselines3", "scipy"]
    code = f"import sys, robot_attn; print([name for name in {heavy} if name in sys.modules])"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"
