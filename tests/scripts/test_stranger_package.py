"""A family, a task and a shift of a package outside the four, from the command line to the report."""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

pytest.importorskip("captum")
pytest.importorskip("sklearn")
pytest.importorskip("cv2")
pytest.importorskip("imageio_ffmpeg")
pytest.importorskip("h5py")

from robot_attn_policies.training.run_folder import read_config

pytestmark = pytest.mark.slow

SOURCE = Path(__file__).parents[1] / "stranger"
BY_HAND = "stranger_attn.by_hand:Stranger/ByHand-v0"
TINY = ["--steps", "32", "--eval-every", "32", "--eval-episodes", "2", "--threads", "1"]


def robot_attn(*arguments: str, path: Path, code: int = 0) -> str:
    """What the command prints, in a process in which `path` is among the places of packages."""
    places = [str(path), os.environ.get("PYTHONPATH", "")]
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(filter(None, places)), "COLUMNS": "200"}
    start = "import sys; from robot_attn_scripts.cli import main; sys.exit(main(sys.argv[1:]))"
    command = [sys.executable, "-c", start, *arguments]
    done = subprocess.run(command, capture_output=True, text=True, env=environment, check=False)
    assert done.returncode == code, done.stdout + done.stderr
    assert "Traceback" not in done.stderr
    return done.stdout + done.stderr


@pytest.fixture(scope="module")
def site(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The package as pip installs it."""
    folder = tmp_path_factory.mktemp("site")
    install = [sys.executable, "-m", "pip", "install", "--quiet", "--no-index", "--no-deps"]
    install += ["--no-build-isolation", "--target", str(folder), str(SOURCE)]
    done = subprocess.run(install, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    return folder


@pytest.fixture(scope="module")
def trained(site: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    run = tmp_path_factory.mktemp("runs") / "lamp"
    scene = ["--env", "image_size=32", "shift=dusk", "intensity=0.5"]
    options = ["--perception", "spot", "--option", "patch_dim=4", "--out", str(run)]
    robot_attn("train", "lamp", *options, *scene, *TINY, path=site)
    return run


def test_what_the_task_says_of_its_training_is_in_the_configuration(trained: Path) -> None:
    config = read_config(trained).config
    assert (config.task, config.perception) == ("lamp", "spot")
    assert (config.ppo.n_envs, config.ppo.n_steps, config.ppo.gamma) == (2, 16, 0.9)
    assert config.ppo.net_arch == (8,) and config.train_env == {"spread": 0.6}
    # It has an oracle, so training's evaluations are scores.
    references = json.loads((trained / "reference.json").read_text())
    assert references["oracle_mean_return"] > references["random_mean_return"]


def test_it_is_evaluated_as_ours_are(site: Path, trained: Path, tmp_path: Path) -> None:
    out = tmp_path / "figures.json"
    few = ["--episodes", "4", "--calibration-episodes", "2", "--json", str(out)]
    robot_attn("evaluate", str(trained), *few, "--env", "shift=dusk", "intensity=1", path=site)
    figures = json.loads(out.read_text())
    assert figures["env"] == {"image_size": 32, "shift": "dusk", "intensity": 1}
    assert figures["normalised_score"]["mean"]["value"] < 1
    assert figures["focus"]["best_head"]["head"] in (0, 1) and len(figures["focus"]["heads"]) == 2
    assert 0 < figures["focus"]["chance"]["value"] < 0.2


def test_its_episode_is_drawn_and_drawn_again_from_elsewhere(
    site: Path, trained: Path, tmp_path: Path
) -> None:
    video, again = tmp_path / "replay.mp4", tmp_path / "again.mp4"
    options = ["--out", str(video), "--shift", "dusk=0.9", "--calibration-episodes", "2"]
    robot_attn("replay", str(trained), *options, path=site)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["replay.hdf5", "replay.html", "replay.mp4"]
    options = ["--out", str(again), "--camera", "above", "--image-size", "64"]
    robot_attn("replay", str(video.with_suffix(".hdf5")), *options, path=site)
    assert "rendered again here at 64" in again.with_suffix(".html").read_text()


def test_it_is_explained_with_interventions_and_heads(site: Path, trained: Path, tmp_path: Path) -> None:
    out = tmp_path / "report.html"
    few = ["--episodes", "2", "--calibration-episodes", "1", "--no-curves"]
    robot_attn("explain", str(trained), "--out", str(out), *few, path=site)
    told = json.loads(out.with_suffix(".json").read_text())
    assert {"focus", "faithful", "interventions", "heads", "weights"} <= set(told["sections"])
    for section in ("focus", "interventions"):
        assert told["sections"][section]["verdict"]["outcome"] in ("yes", "no", "undecided")


@pytest.fixture(scope="module")
def by_place(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A run of the same package, not installed: on the path, and named."""
    run = tmp_path_factory.mktemp("runs") / "by-place"
    named = [BY_HAND, "--perception", "stranger_attn.spot:Spot"]
    options = ["--out", str(run), "--env", "image_size=32", "shift=nightfall"]
    robot_attn("train", *named, *options, *TINY, path=SOURCE)
    return run


def test_without_an_installation_it_is_named_by_its_place(by_place: Path, tmp_path: Path) -> None:
    config = read_config(by_place).config
    assert config.perception == "stranger_attn.spot:Spot" and config.ppo.gamma == 0.9
    few = ["--episodes", "2", "--calibration-episodes", "1", "--json", str(tmp_path / "figures.json")]
    modules = ["--module", "stranger_attn.by_hand", "stranger_attn.spot"]
    robot_attn("evaluate", str(by_place), *few, *modules, path=SOURCE)
    assert json.loads((tmp_path / "figures.json").read_text())["normalised_score"] is not None


@pytest.mark.parametrize(
    ("command", "message"),
    [
        (["evaluate"], "if you trust it, add --module stranger_attn.by_hand stranger_attn.spot"),
        (["explain", "--module", "stranger_attn.spot"], "trust it, add --module stranger_attn.by_hand"),
        (["replay", "--module", "stranger_attn.by_hand"], "trust it, add --module stranger_attn.spot"),
        (["train", BY_HAND, "--resume", "--out"], "add --module stranger_attn.spot"),
    ],
)
def test_what_a_folder_names_is_not_imported_unless_a_person_names_it_too(
    by_place: Path, command: list[str], message: str
) -> None:
    place = command.index("--module") if "--module" in command else len(command)
    arguments = [*command[:place], str(by_place), *command[place:]]
    assert message in robot_attn(*arguments, path=SOURCE, code=2)


def test_an_installed_package_is_listed(site: Path, tmp_path: Path) -> None:
    listed = robot_attn("families", "--rounds", "1", "--batch", "2", "--image-size", "32", "32", path=site)
    assert "spot" in listed and "showing that a family can come from anywhere" in listed
