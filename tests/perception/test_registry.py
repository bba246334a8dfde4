"""Families of other packages: by name, by entry point and by path."""

import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
import torch

import robot_attn
from robot_attn import FAMILIES, Percept, build, find_family, register_family, registry
from robot_attn.families import BUILTIN_FAMILIES, Cnn, HeadInputs, Keypoints, Patches, Query, Readout

DOT = """
from robot_attn.families import Cnn

class Dot(Cnn):
    good_for = "tests"

class Other:
    pass
"""


class Wink(Cnn):
    pass


@pytest.fixture(autouse=True)
def only_ours(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    monkeypatch.setattr(registry, "_registered", {})
    registry._installed.cache_clear()
    yield
    registry._installed.cache_clear()


def install(site: Path, monkeypatch: pytest.MonkeyPatch, name: str, entry_points: str, source: str) -> None:
    """An installed distribution `name` with a module of that name."""
    about = site / f"{name}-1.0.dist-info"
    about.mkdir(parents=True)
    (about / "METADATA").write_text(f"Metadata-Version: 2.1\nName: {name}\nVersion: 1.0\n")
    (about / "entry_points.txt").write_text(f"[robot_attn.families]\n{entry_points}\n")
    (site / f"{name}.py").write_text(source)
    if str(site) not in sys.path:
        monkeypatch.syspath_prepend(str(site))
    monkeypatch.delitem(sys.modules, name, raising=False)


def test_a_registered_family_is_found_wherever_a_name_is_accepted() -> None:
    register_family("wink", Wink)
    register_family("wink", Wink)  # the same again, as when a notebook's cell is run twice
    assert FAMILIES["wink"] is Wink and "wink" in FAMILIES and [*FAMILIES] == [*BUILTIN_FAMILIES, "wink"]
    assert len(FAMILIES) == 12
    assert isinstance(build("wink", (3, 36, 36), features_dim=5), Wink)
    with pytest.raises(ValueError, match=r"slots, wink, got 'winc': did you mean 'wink'\?"):
        build("winc", (3, 36, 36))


@pytest.mark.parametrize("name", ["query", "wink"])
def test_a_name_in_use_is_refused(name: str) -> None:
    register_family("wink", Wink)
    with pytest.raises(ValueError, match=f"an unused name, got '{name}', which is .*: choose another"):
        register_family(name, Keypoints)
    assert FAMILIES["query"] is Query and FAMILIES["wink"] is Wink


@pytest.mark.parametrize("name", ["", "a:B", "a b", "a/b", "-x"])
def test_invalid_names_are_refused(name: str) -> None:
    with pytest.raises(ValueError, match="a family name of letters, digits"):
        register_family(name, Wink)


def test_only_a_perception_is_a_family() -> None:
    with pytest.raises(ValueError, match=r"a subclass of robot_attn\.Perception, got <class 'torch\.nn"):
        register_family("linear", torch.nn.Linear)  # type: ignore[arg-type]


def test_the_view_is_read_only() -> None:
    with pytest.raises(TypeError):
        FAMILIES["wink"] = Wink  # type: ignore[index]
    with pytest.raises(KeyError):
        FAMILIES["nothing"]


def test_an_installed_family_is_listed_and_imported_only_when_it_is_looked_up(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    install(tmp_path, monkeypatch, "dots", "dot = dots:Dot\n", DOT)
    assert [*FAMILIES] == [*BUILTIN_FAMILIES, "dot"] and "dot" in FAMILIES and len(FAMILIES) == 12
    build("query", (3, 32, 32))
    assert "dots" not in sys.modules
    assert build("dot", (3, 36, 36)).good_for == "tests"
    assert find_family("dot").__module__ == "dots"


def test_an_installed_package_does_not_replace_our_families(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    install(tmp_path, monkeypatch, "dots", "query = dots:Dot\n", DOT)
    assert FAMILIES["query"] is Query and "dots" not in sys.modules


def test_two_packages_with_one_name(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    install(tmp_path, monkeypatch, "dots", "dot = dots:Dot\n", DOT)
    install(tmp_path, monkeypatch, "spots", "dot = spots:Dot\n", DOT)
    assert "dot" in FAMILIES
    with pytest.raises(ValueError, match="got dots:Dot and spots:Dot: uninstall one"):
        build("dot", (3, 36, 36))


@pytest.mark.parametrize(
    ("place", "match"),
    [
        ("dots:Other", "a subclass of robot_attn.Perception, got <class 'dots.Other'>"),
        ("dots:Missing", r"can be imported, got 'dots:Missing' .* put its folder in PYTHONPATH"),
        (
            "nothing_there:Dot",
            r"can be imported, got 'nothing_there:Dot' \(No module named 'nothing_there'\)",
        ),
        ("dots:", 'expected a family as "module:Class", got'),
        (":Dot", 'expected a family as "module:Class", got'),
        ("dots:Dot:Dot", 'expected a family as "module:Class", got'),
    ],
)
def test_a_place_without_a_family(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, place: str, match: str
) -> None:
    install(tmp_path, monkeypatch, "dots", f"dot = {place}\n", DOT)
    with pytest.raises(ValueError, match=match):
        build(place, (3, 36, 36))
    with pytest.raises(ValueError, match=match):
        FAMILIES["dot"]


def test_a_family_by_its_place(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    install(tmp_path, monkeypatch, "dots", "", DOT)
    assert build("dots:Dot", (3, 36, 36)).good_for == "tests"
    assert [*FAMILIES] == [*BUILTIN_FAMILIES]


class Pair(robot_attn.Perception):
    """Two learned queries, built from the public blocks only."""

    def __init__(self, image_shape: tuple[int, int, int], context_dim: int = 0) -> None:
        super().__init__(image_shape, context_dim)
        self.features_dim, self.num_heads = 7, 2
        self.patches = Patches(self.image_shape, 5)
        self.grid = self.patches.grid
        self.queries = torch.nn.Parameter(torch.randn(2, 5))
        self.readout = Readout(
            self.grid,
            num_heads=2,
            key_dim=5,
            value_dim=5,
            context_dim=context_dim,
            features_dim=7,
            score="standardized",
        )

    def perceive(self, frames: torch.Tensor, context: torch.Tensor | None) -> Percept:
        tokens = self.patches(frames).flatten(2).transpose(1, 2)
        return self.readout(self.queries[None], tokens, tokens, context)


class TellsApart(Pair):
    def head_inputs(self) -> HeadInputs:
        return self.readout.head_inputs()


def test_a_family_made_of_the_public_blocks() -> None:
    torch.manual_seed(0)
    percept = build(Pair, (3, 32, 40), 3)(torch.rand(4, 3, 32, 40), torch.rand(4, 3))
    assert percept.features.shape == (4, 7) and percept.attention.shape == (4, 2, 7, 9)
    torch.testing.assert_close(percept.attention.sum((2, 3)), torch.ones(4, 2))


def test_a_family_describes_the_contribution_of_its_heads() -> None:
    with pytest.raises(
        ValueError, match="expected Pair to separate its 2 heads, got no head_inputs: override"
    ):
        build(Pair, (3, 32, 32)).head_inputs()
    heads = build(TellsApart, (3, 32, 32), 3).head_inputs()
    # Two values of 5 numbers, two positions (x, y), and 3 numbers of context.
    assert heads.layer.in_features == 17
    assert heads.columns == ((0, 1, 2, 3, 4, 10, 11), (5, 6, 7, 8, 9, 12, 13))


def test_invalid_columns_are_refused() -> None:
    layer = torch.nn.Linear(4, 2)
    with pytest.raises(ValueError, match="columns below the layer's 4 inputs, got 4"):
        HeadInputs(layer, ((0, 1), (3, 4)))
    with pytest.raises(ValueError, match="at least two heads to ablate one, got 1"):
        HeadInputs(layer, ((0, 1),))
