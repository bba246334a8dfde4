"""`robot-attn families`: the table of the families."""

import json
import re
from pathlib import Path

import pytest

pytest.importorskip("rich")

import robot_attn
from robot_attn_scripts import families
from robot_attn_scripts.families import Options, count_flops


def test_every_family_is_listed_with_its_figures(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    path = tmp_path / "families.json"
    figures = families.run(Options(image_size=(40, 56), batch=2, rounds=1, json=path))
    assert json.loads(path.read_text()) == figures
    assert figures["image_size"] == [40, 56]
    told = figures["families"]
    assert isinstance(told, dict) and sorted(told) == sorted(robot_attn.FAMILIES)
    printed = capsys.readouterr().out
    for name, facts in told.items():
        module = robot_attn.build(name, (3, 40, 56))
        parameters = sum(each.numel() for each in module.parameters())
        assert facts["parameters"] == {"value": parameters, "unit": "parameters"}
        assert (facts["heads"], facts["grid"]) == (module.num_heads, list(module.grid.shape))
        assert facts["forward"]["frames"] == 1 and facts["forward + backward"]["frames"] == 2
        assert all(
            facts[key]["unit"] == "ms" and facts[key]["median"] > 0
            for key in ("forward", "forward + backward")
        )
        (row,) = re.findall(rf"^{name} +[0-9].*$", printed, re.MULTILINE)  # whole, in 80 columns
        assert f"{parameters:,}" in row.split()


def test_markdown_is_a_table_and_nothing_else(capsys: pytest.CaptureFixture[str]) -> None:
    families.run(Options(image_size=(32, 32), batch=3, rounds=1, markdown=True))
    heading, rule, *rows = (line.strip("|").split("|") for line in capsys.readouterr().out.splitlines())
    assert heading[0].strip() == "family" and heading[4].strip() == "3 frames, both ways (ms)"
    assert {cell.strip() for cell in rule} == {"---"}
    told = {row[0].strip(): row[-1].strip() for row in rows}
    assert told == {name: family.good_for for name, family in sorted(robot_attn.FAMILIES.items())}
    assert {len(row) for row in rows} == {len(heading)} == {len(rule)}


def test_the_flops_of_naturecnn_are_those_of_its_layers() -> None:
    layers = [
        32 * 15 * 15 * 3 * 8 * 8,
        64 * 6 * 6 * 32 * 4 * 4,
        64 * 4 * 4 * 64 * 3 * 3,
        512 * 64 * 4 * 4,
    ]
    assert count_flops(robot_attn.build("cnn", (3, 64, 64))) == 2 * sum(layers)


def test_the_flops_of_query_are_counted_though_its_backward_pass_is_written_by_hand() -> None:
    heads, patch, hidden, count, context = 3, 5, 7, 9 * 13, 2
    module = robot_attn.build(
        "query", (1, 40, 56), context, num_heads=heads, patch_dim=patch, hidden_dim=hidden, features_dim=11
    )
    steps = [
        count * patch * 64,  # patches
        count * patch * hidden,
        count * hidden * heads,  # logits
        count * heads * patch,  # pooled
        count * heads * 2,  # places
        11 * (heads * (patch + 2) + context),
    ]
    assert count_flops(module) == 2 * sum(steps)
    assert all(parameter.requires_grad for parameter in module.parameters())


def test_the_flops_of_every_family_grow_with_the_frame() -> None:
    for name in robot_attn.FAMILIES:
        small, large = (count_flops(robot_attn.build(name, (3, side, side))) for side in (40, 80))
        assert 0 < small < large, name


@pytest.mark.parametrize("family", sorted(robot_attn.FAMILIES))
def test_every_family_says_what_it_is_good_for_in_a_cell_of_a_table(family: str) -> None:
    words = robot_attn.FAMILIES[family].good_for
    assert words and "|" not in words and "\n" not in words and not words.endswith(".")


@pytest.mark.parametrize(
    ("wrong", "match"),
    [
        ({"rounds": 0}, "from 1 to"),
        ({"batch": 0}, "from 1 to"),
        ({"image_size": (31, 64)}, "from 32 to 512, got 31"),
    ],
)
def test_nothing_to_list(wrong: dict[str, object], match: str) -> None:
    with pytest.raises(ValueError, match=match):
        families.run(Options(**wrong))  # type: ignore[arg-type]
