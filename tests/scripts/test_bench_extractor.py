import json
from pathlib import Path

import pytest

pytest.importorskip("stable_baselines3")

import robot_attn
from robot_attn_scripts.benchmarks import extractor


def test_figures_have_units_and_are_written_as_they_are_returned(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(extractor, "FRAMES_A_ROUND", 6)
    path = tmp_path / "figures.json"
    options = extractor.Options(batches=(2, 3), rounds=2, decisions=3, json=path)
    figures = extractor.run(options)
    assert json.loads(path.read_text()) == figures
    extractors, decisions = figures["extractors"], figures["decisions"]
    assert isinstance(extractors, dict) and isinstance(decisions, dict)
    assert sorted(extractors) == ["NatureCNN", *sorted(robot_attn.FAMILIES)]
    assert sorted(decisions) == sorted(robot_attn.FAMILIES)
    assert extractors["cnn"]["parameters"] == extractors["NatureCNN"]["parameters"]
    assert extractors["query"]["batch 3"]["unit"] == "ms"
    ratio = extractors["query"]["batch 2, ratio"]
    assert ratio["unit"] == "x" and 0 < ratio["min"] <= ratio["value"] <= ratio["max"]
    assert decisions["query"]["unit"] == "ms" and decisions["query"]["value"] > 0


@pytest.mark.parametrize("wrong", [{"rounds": 0}, {"batches": ()}, {"batches": (64, 0)}, {"decisions": 0}])
def test_nothing_to_measure(wrong: dict[str, object]) -> None:
    with pytest.raises(ValueError, match=r"expected --[a-z-]+ (from 1 to|with at least one value)"):
        extractor.run(extractor.Options(**wrong))  # type: ignore[arg-type]
