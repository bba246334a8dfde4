"""Errors for unknown names: the same from each package."""

import pytest

import robot_attn.errors
import robot_attn_envs.errors
import robot_attn_scripts._errors

MODULES = (robot_attn.errors, robot_attn_envs.errors, robot_attn_scripts._errors)
OWNERS = [module.unknown_name for module in MODULES]
NAMES = ("cnn", "Query", "patches")


@pytest.mark.parametrize("unknown_name", OWNERS)
@pytest.mark.parametrize(
    ("name", "hint"),
    [
        ("qurey", ": did you mean 'Query'?"),
        ("PATCHES", ": did you mean 'patches'?"),
        ("xyzzy", ""),
        ("3", ""),
    ],
)
def test_an_unknown_name_lists_the_known_ones(unknown_name: object, name: object, hint: str) -> None:
    assert callable(unknown_name)
    error = unknown_name("family", name, sorted(NAMES))
    assert isinstance(error, ValueError)
    assert str(error) == f"expected a family among Query, cnn, patches, got {name!r}{hint}"


@pytest.mark.parametrize("unknown_name", OWNERS)
def test_the_article_matches_the_kind(unknown_name: object) -> None:
    assert callable(unknown_name)
    assert str(unknown_name("option", "b", ["a"])) == "expected an option among a, got 'b'"


def test_commands_list_more_and_know_other_spellings() -> None:
    error = robot_attn_scripts._errors.unknown_name(
        "task", "Robotattn/Track-v0", ["track"], also={"RobotAttn/Track-v0": "track"}, more=" and every id"
    )
    assert str(error) == (
        "expected a task among track and every id, got 'Robotattn/Track-v0': did you mean 'track'?"
    )
