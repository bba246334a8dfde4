"""Commands, links and files in the README and CONTRIBUTING exist; `test_docs.py` runs the code."""

import re
import shlex
from pathlib import Path

import pytest

from robot_attn_scripts import cli

ROOT = Path(__file__).parents[1]
README = (ROOT / "README.md").read_text()
PAGES = {name: (ROOT / name).read_text() for name in ("README.md", "CONTRIBUTING.md")}
EXAMPLES = re.findall(r"```python\n(.*?)```", README, re.DOTALL)
COMMANDS = re.findall(r"^robot-attn .*", "\n".join(re.findall(r"```bash\n(.*?)```", README, re.DOTALL)), re.M)


def test_the_perception_example_fits_in_ten_lines() -> None:
    assert len([line for line in EXAMPLES[0].splitlines() if line]) <= 10


@pytest.mark.parametrize("line", COMMANDS)
def test_the_options_of_every_command_exist(line: str, capsys: pytest.CaptureFixture[str]) -> None:
    words = shlex.split(line, comments=True)
    assert words[1] in cli.COMMANDS
    with pytest.raises(SystemExit) as stop:
        cli.main([words[1], "--help"])
    assert stop.value.code == 0
    described = capsys.readouterr().out
    assert [word for word in words if word.startswith("--") and word not in described] == []


def test_the_commands_are_found_in_the_page() -> None:
    assert [line.split()[1] for line in COMMANDS] == ["train", "evaluate", "replay", "explain"]


@pytest.mark.parametrize("page", PAGES)
def test_every_target_of_make_exists(page: str) -> None:
    named = set(re.findall(r"^make (\w+)", PAGES[page], re.M)) | set(re.findall(r"`make (\w+)`", PAGES[page]))
    targets = set(re.findall(r"^(\w+):", (ROOT / "Makefile").read_text(), re.M))
    assert named <= targets
    assert named


@pytest.mark.parametrize("page", PAGES)
def test_every_link_and_named_file_is_there(page: str) -> None:
    links = re.findall(r"\]\(([^)#:]+)\)", PAGES[page])
    paths = re.findall(r"`((?:robot_attn|envs|policies|scripts|tests)/[\w/.]+)`", PAGES[page])
    assert [path for path in links + paths if not (ROOT / path).exists()] == []
