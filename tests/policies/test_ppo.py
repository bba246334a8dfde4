"""PerceptionPPO: its updates are SB3's, it can be interrupted, and frames stay uint8."""

from __future__ import annotations

import copy

import numpy as np
import pytest
import torch
from stable_baselines3 import PPO
from stable_baselines3.common.logger import Logger
from toy_env import ToyEnv

from robot_attn_policies.sb3.extractor import PerceptionExtractor
from robot_attn_policies.sb3.policy import PerceptionPolicy, policy_weights
from robot_attn_policies.sb3.ppo import PerceptionPPO, TrainingInterrupted
from robot_attn_policies.sb3.vec_env import BatchVecEnv


def trained(
    kind: type[PPO], *, ours: bool, box: bool, discrete: bool, target_kl: float | None
) -> tuple[PPO, dict[str, float]]:
    """A PPO after three rollouts and updates, and the figures logged in the last."""
    name = "CnnPolicy" if box else "MultiInputPolicy"
    torch.set_num_threads(1)
    model = kind(
        PerceptionPolicy if ours else name,
        BatchVecEnv(ToyEnv(3, box=box, discrete=discrete), channels_first=ours),
        n_steps=10,
        batch_size=8,  # leaves a smaller last minibatch: 3 x 10 = 3 x 8 + 6
        n_epochs=3,
        ent_coef=0.01,
        target_kl=target_kl,
        seed=3,
        policy_kwargs={
            "features_extractor_class": PerceptionExtractor,
            "features_extractor_kwargs": {"perception": "query"},
        },
    )
    model.set_logger(Logger(None, []))
    model.learn(90, log_interval=1000)
    return model, copy.copy(dict(model.logger.name_to_value))


@pytest.mark.filterwarnings("ignore:You have specified a mini-batch size")
@pytest.mark.parametrize(
    ("box", "discrete", "target_kl"), [(False, False, None), (True, True, None), (False, False, 1e-4)]
)
def test_updates_equal_sb3s(box: bool, discrete: bool, target_kl: float | None) -> None:
    expected, figures = trained(PPO, ours=False, box=box, discrete=discrete, target_kl=target_kl)
    found, our_figures = trained(PerceptionPPO, ours=True, box=box, discrete=discrete, target_kl=target_kl)
    theirs, ours = policy_weights(expected.policy), policy_weights(found.policy)
    assert theirs.keys() == ours.keys()
    for name in theirs:
        torch.testing.assert_close(
            ours[name], theirs[name], rtol=1e-4, atol=2e-6, msg=lambda text, n=name: f"{n}: {text}"
        )
    assert our_figures.keys() == figures.keys()
    for name, value in figures.items():
        if name.startswith("train/"):
            assert our_figures[name] == pytest.approx(value, rel=1e-3, abs=1e-5), name
    assert found._n_updates == expected._n_updates
    if target_kl is not None:
        assert found._n_updates < 9  # stopped early


@pytest.mark.parametrize(("box", "discrete"), [(False, False), (True, True)])
def test_rollouts_equal_sb3s(box: bool, discrete: bool) -> None:
    """Also the values of episodes that the time limit cut off, which are computed together here."""
    models = []
    for kind in (PPO, PerceptionPPO):
        model = kind(
            PerceptionPolicy,
            BatchVecEnv(ToyEnv(3, box=box, discrete=discrete), channels_first=True),
            n_steps=40,  # three episodes or more
            batch_size=60,
            seed=3,
            policy_kwargs={"features_extractor_class": PerceptionExtractor},
        )
        model.train = lambda: None  # type: ignore[method-assign]
        model.learn(120)
        models.append(model)
    theirs, ours = models
    for name in ("actions", "episode_starts", "rewards", "values", "log_probs", "advantages", "returns"):
        expected, found = (getattr(model.rollout_buffer, name) for model in models)
        np.testing.assert_allclose(found, expected, rtol=1e-5, atol=1e-6, err_msg=name)
    assert ours.rollout_buffer.episode_starts[1:].sum() > 3
    assert ours.num_timesteps == theirs.num_timesteps == 120
    assert [episode["r"] for episode in ours.ep_info_buffer] == [e["r"] for e in theirs.ep_info_buffer]
    assert list(ours.ep_success_buffer) == list(theirs.ep_success_buffer)


def test_stop_interrupts_an_update() -> None:
    model = PerceptionPPO(
        PerceptionPolicy,
        BatchVecEnv(ToyEnv(2), channels_first=True),
        n_steps=8,
        batch_size=8,
        policy_kwargs={"features_extractor_class": PerceptionExtractor},
    )
    answers = iter([False, True])
    model.stop = lambda: next(answers)
    with pytest.raises(TrainingInterrupted):
        model.learn(16)
    assert model.policy.optimizer.state_dict()["state"][0]["step"].item() == 1


def test_images_reach_the_perception_as_uint8() -> None:
    model = PerceptionPPO(
        PerceptionPolicy,
        BatchVecEnv(ToyEnv(2), channels_first=True),
        n_steps=8,
        batch_size=8,
        n_epochs=1,
        policy_kwargs={"features_extractor_class": PerceptionExtractor},
    )
    dtypes = set()
    model.policy.features_extractor.perception.register_forward_pre_hook(
        lambda _, inputs: dtypes.add(inputs[0].dtype)
    )
    model.learn(16)
    model.predict({"image": np.zeros((36, 44, 3), np.uint8), "state": np.zeros(2, np.float32)})
    assert dtypes == {torch.uint8}
