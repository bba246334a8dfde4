"""Options given more than once: lists and NAME=VALUE pairs add up, everything else is refused."""

from __future__ import annotations

import dataclasses
import re
import typing
from typing import Any

import pytest

from robot_attn_scripts import benchmark, cli
from robot_attn_scripts._command import Command, options_type, parse
from robot_attn_scripts._name_value import parse_pairs

COMMANDS: dict[str, Command] = {
    **{name: command for name, command in cli.COMMANDS.items() if not command.group},
    **{f"benchmark {name}": command for name, command in benchmark.COMMANDS.items()},
}

REQUIRED = {
    "watch": ["a.mp4", "run"],
    "train": ["track"],
    "cameras": ["Pusher-v5"],
    **{name: ["run"] for name in ("evaluate", "compare", "curves", "replay", "explain", "record", "export")},
    "benchmark maps": ["run"],
}
"""The positional arguments of each command that needs some."""

PAIRS = {
    "ppo": ("n_envs=48", "n_steps=32"),
    "env": ("distractors=3", "masks=true"),
    "option": ("num_heads=2", "key_dim=8"),
    "shift": ("noise=0.5", "colors"),
}
NAMES = {
    "module": ("first", "second"),
    "suite": ("easy", "hard"),
    "tasks": ("reach", "push"),
    "families": ("query", "cnn"),
    "peers": ("cnn", "query"),
    "supervise": ("position", "map"),
}
NUMBERS = {"intensities": ("0.5", "1"), "size": ("64", "84"), "shares": ("0.1", "0.2")}


def fields_of(command: Command) -> dict[str, Any]:
    """The type of each optional argument of a command, by its name."""
    return {
        field.name: typing.get_type_hints(group)[field.name]
        for group in options_type(command).groups()
        for field in dataclasses.fields(group)
        if field.default is not dataclasses.MISSING
    }


def is_list(kind: Any) -> bool:
    return typing.get_origin(kind) is tuple and typing.get_args(kind)[-1] is Ellipsis


LISTS = [
    (name, option)
    for name, one in COMMANDS.items()
    for option, kind in fields_of(one).items()
    if is_list(kind)
]
SINGLES = [
    (name, option)
    for name, one in COMMANDS.items()
    for option, kind in fields_of(one).items()
    if not is_list(kind)
]


def parsed(name: str, *arguments: str) -> Any:
    return parse(f"robot-attn {name}", COMMANDS[name], [*REQUIRED.get(name, []), *arguments])


def values_of(name: str, option: str) -> tuple[str, str]:
    """Two values for an option that takes a list."""
    if option in PAIRS or option in NAMES:
        return (PAIRS | NAMES)[option]
    return NUMBERS.get(option, ("1", "2"))


def test_every_command_has_options_that_are_checked_here() -> None:
    assert {name for name, _ in LISTS} >= {"train", "evaluate", "compare", "replay", "benchmark envs"}
    assert {name for name, _ in SINGLES} == set(COMMANDS)


@pytest.mark.parametrize(("name", "option"), LISTS)
def test_repeated_lists_add_up(name: str, option: str) -> None:
    first, second = values_of(name, option)
    flag = f"--{option.replace('_', '-')}"
    together = getattr(parsed(name, flag, first, second), option)
    assert len(together) == 2
    assert getattr(parsed(name, flag, first, flag, second), option) == together
    assert getattr(parsed(name, f"{flag}={first}", f"{flag}={second}"), option) == together


@pytest.mark.parametrize(("name", "option"), SINGLES)
def test_a_repeated_single_option_is_refused(name: str, option: str) -> None:
    flag = f"--{option.replace('_', '-')}"
    kind = fields_of(COMMANDS[name])[option]
    count = 0 if kind is bool else len(typing.get_args(kind)) if typing.get_origin(kind) is tuple else 1
    once = [flag, *["5"] * count]
    with pytest.raises(ValueError, match=f"^expected {flag} once, got it 2 times: "):
        parsed(name, *once, *once)


@pytest.mark.parametrize(
    ("arguments", "option", "values"),
    [
        (["--steps", "5", "--steps=7"], "--steps", ["5", "7"]),
        (["--eval_every", "5", "--eval-every", "7"], "--eval-every", ["5", "7"]),
        (["--resume", "--seed", "1", "--no-resume"], "--resume", ["--resume", "--no-resume"]),
        (["--seed", "1", "--seed", "2", "--seed", "3"], "--seed", ["1", "2", "3"]),
        (["--ppo", "n_envs=4", "--ppo", "n_envs=8"], "n_envs", ["n_envs=4", "n_envs=8"]),
        (["--env", "masks=true", "--env", "masks=true"], "masks", ["masks=true", "masks=true"]),
        (["--option", "heads=1", "heads=2"], "heads", ["heads=1", "heads=2"]),
    ],
)
def test_the_error_lists_the_values(arguments: list[str], option: str, values: list[str]) -> None:
    expected = f"expected {option} once, got it {len(values)} times: {', '.join(values)}"
    with pytest.raises(ValueError, match=f"^{re.escape(expected)}$"):
        parsed("train", *arguments)


def test_a_size_that_is_repeated_is_refused_with_both_numbers() -> None:
    with pytest.raises(ValueError, match=r"^expected --image-size once, got it 2 times: 64 64, 32 48$"):
        parsed("families", "--image-size", "64", "64", "--image-size", "32", "48")


def test_a_repeated_value_of_a_list_counts_once() -> None:
    assert parsed("compare", "--suite", "hard", "--suite", "easy", "--suite", "hard").suite == (
        "hard",
        "easy",
    )


def test_positional_arguments_keep_their_place() -> None:
    command = COMMANDS["train"]
    ppo = ["--ppo", "n_envs=8", "--steps", "5000", "--ppo", "n_steps=64"]
    for arguments in (
        ["track", *ppo],
        [*ppo, "track"],
        [*ppo, "--", "track"],
        ["--seed", "3", "track", *ppo],
    ):
        options: Any = parse("robot-attn train", command, arguments)
        assert (options.task, options.steps, options.ppo) == ("track", 5000, ("n_envs=8", "n_steps=64"))


def test_negative_numbers_are_values() -> None:
    assert parsed("curves", "--reach", "-1").reach == -1
    with pytest.raises(ValueError, match=r"^expected --reach once, got it 2 times: -1, -2$"):
        parsed("curves", "--reach", "-1", "--reach", "-2")


def test_help_is_shown_whatever_is_repeated(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as stop:
        parsed("train", "--steps", "5", "--steps", "7", "--help")
    assert stop.value.code == 0
    assert "usage: robot-attn train" in capsys.readouterr().out


def test_pairs_are_json_or_text() -> None:
    assert parse_pairs(["a=1", "b=[2, 3]", "c=x=y"]) == {"a": 1, "b": [2, 3], "c": "x=y"}
