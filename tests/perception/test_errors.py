"""The sentence for a name that is not known: the same from each package that has one."""

import pytest

import robot_attn.errors
import robot_attn_envs.errors

NAMES = ("cnn", "Query", "patches")


@pytest.mark.parametrize(
    "unknown_name", [robot_attn.errors.unknown_name, robot_attn_envs.errors.unknown_name]
)
@pytest.mark.parametrize(
    ("name", "hint"),
    [("qurey", ": did you mean 'Query'?"), ("PATCHES", ": did you mean 'patches'?"), ("xyzzy", ""), (3, "")],
)
def test_an_unknown_name_is_one_sentence(unknown_name: object, name: object, hint: str) -> None:
    assert callable(unknown_name)
    error = unknown_name("family", name, sorted(NAMES))
    assert isinstance(error, ValueError)
    assert str(error) == f"expected a family among Query, cnn, patches, got {name!r}{hint}"


@pytest.mark.parametrize(
    "unknown_name", [robot_attn.errors.unknown_name, robot_attn_envs.errors.unknown_name]
)
def test_the_article_goes_with_the_kind(unknown_name: object) -> None:
    assert callable(unknown_name)
    assert str(unknown_name("option", "b", ["a"])) == "expected an option among a, got 'b'"


def test_more_can_be_named_than_is_listed() -> None:
    error = robot_attn.errors.unknown_name("task", "trakc", ["track"], more=" and every id")
    assert str(error) == "expected a task among track and every id, got 'trakc': did you mean 'track'?"
