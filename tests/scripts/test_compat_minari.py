"""What Minari does not document and `robot-attn record --minari` builds on: each part is there, and works."""

import importlib
from pathlib import Path

import gymnasium
import numpy as np
import pytest

pytest.importorskip("minari")
pytest.importorskip("h5py")

import minari
from minari.data_collector import EpisodeBuffer

from robot_attn_scripts.compat.minari import DATA_FOLDER, dataset_path, make_namespace, namespace_of

PARTS = (
    ("minari.dataset.minari_dataset", "parse_dataset_id"),
    ("minari.storage", "get_dataset_path"),
    ("minari.namespace", "create_namespace"),
    ("minari.namespace", "list_local_namespaces"),
)


@pytest.fixture(autouse=True)
def a_place_of_its_own(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("MINARI_DATASETS_PATH", str(tmp_path))


@pytest.mark.parametrize(("module", "name"), PARTS)
def test_minari_still_has(module: str, name: str) -> None:
    assert hasattr(importlib.import_module(module), name), f"{module} has no {name}"


def test_the_namespace_of_a_name() -> None:
    assert namespace_of("track/query-v0") == "track"
    assert namespace_of("lab/track/query-v12") == "lab/track"
    assert namespace_of("query-v0") is None
    for name in ("query", "track/query", "-v0", "a query-v0", ""):
        with pytest.raises(ValueError, match=r".+"):
            namespace_of(name)


def test_a_dataset_lies_below_the_folder_that_is_set(tmp_path: Path) -> None:
    assert dataset_path("track/query-v0") == tmp_path / "track" / "query-v0"


def test_a_namespace_is_made_once(tmp_path: Path) -> None:
    from minari.namespace import list_local_namespaces

    make_namespace("track")
    before = sorted(tmp_path.rglob("*"))
    make_namespace("track")
    assert list_local_namespaces() == ["track"]
    assert sorted(tmp_path.rglob("*")) == before


@pytest.mark.filterwarnings("ignore::UserWarning")  # about the author and the like
def test_a_dataset_keeps_what_is_in_it_in_its_data_folder() -> None:
    buffer = EpisodeBuffer(
        observations=np.zeros((3, 2), np.float32),
        actions=np.zeros(2, np.int64),
        rewards=[0.0, 1.0],
        terminations=[False, True],
        truncations=[False, False],
    )
    minari.create_dataset_from_buffers(
        "toy/lamp-v0",
        [buffer],
        observation_space=gymnasium.spaces.Box(-1, 1, (2,)),
        action_space=gymnasium.spaces.Discrete(2),
        data_format="hdf5",
    )
    assert (dataset_path("toy/lamp-v0") / DATA_FOLDER).is_dir()
    assert minari.load_dataset("toy/lamp-v0").total_episodes == 1
