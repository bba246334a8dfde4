"""Forced attention: what depends on the weights follows them, and nothing else moves."""

from __future__ import annotations

import threading
from collections.abc import Iterator

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor, nn
from torch.nn import functional as F

from robot_attn import FAMILIES, Percept, Perception, build, forceable
from robot_attn.families import Dynamic, Keypoints, Patches

WITH_WEIGHTS = sorted(set(FAMILIES) - {"cnn"})
OPTIONS = {"local": {"rollout": False}}
"""By rollout a map has weight beyond the cell that its query attends to."""


def make(
    family: str, size: tuple[int, int] = (37, 53), context: int = 3
) -> tuple[Perception, Tensor, Tensor]:
    torch.manual_seed(0)
    module = build(family, (3, *size), context, **OPTIONS.get(family, {}))
    return module, torch.rand(3, 3, *size), torch.randn(3, context)


def one_hot(weights: Tensor, row: int, col: int) -> Tensor:
    forced = torch.zeros_like(weights)
    forced[:, :, row, col] = 1.0
    return forced


@pytest.mark.parametrize("family", WITH_WEIGHTS)
def test_its_own_weights_leave_the_features_as_they_are(family: str) -> None:
    module, frames, context = make(family)
    plain = module(frames, context)
    with module.attention_forced(torch.clone) as forcing:
        forced = module(frames, context)
    torch.testing.assert_close(forced, plain)
    assert (forcing.point, forcing.passes) == ("declared", 1)
    torch.testing.assert_close(forcing.weights, plain.attention)


@settings(max_examples=5, deadline=None)
@given(st.data())
@pytest.mark.parametrize("family", WITH_WEIGHTS)
def test_a_map_at_another_place_is_used_and_shown(family: str, data: st.DataObject) -> None:
    module, frames, context = make(family)
    row, col = (data.draw(st.integers(0, side - 1)) for side in module.grid.shape)
    plain = module(frames, context)
    with module.attention_forced(lambda weights: one_hot(weights, row, col)):
        forced = module(frames, context)
    torch.testing.assert_close(forced.attention, one_hot(forced.attention, row, col))
    assert not torch.allclose(forced.features, plain.features, rtol=1e-3, atol=1e-4)
    after = module(frames, context)
    assert torch.equal(after.features, plain.features) and torch.equal(after.attention, plain.attention)


@pytest.mark.parametrize("family", WITH_WEIGHTS)
def test_each_frame_and_each_head_is_forced_alone(family: str) -> None:
    module, frames, context = make(family)
    plain = module(frames, context)

    def last_head_of_the_first_frame(weights: Tensor) -> Tensor:
        changed = weights.clone()
        changed[0, -1] = one_hot(weights, 2, 5)[0, -1]
        return changed

    with module.attention_forced(last_head_of_the_first_frame):
        forced = module(frames, context)
    torch.testing.assert_close(forced.features[1:], plain.features[1:])
    assert not torch.allclose(forced.features[0], plain.features[0], rtol=1e-3, atol=1e-4)
    torch.testing.assert_close(forced.attention[1:], plain.attention[1:])


@pytest.mark.parametrize("family", WITH_WEIGHTS)
def test_gradients_pass_by_way_of_what_is_used(family: str) -> None:
    module, frames, context = make(family)
    features = []
    for change in (None, torch.clone):
        module.zero_grad()
        if change is None:
            percept = module(frames, context)
        else:
            with module.attention_forced(change):
                percept = module(frames, context)
        loss: Tensor = percept.features.square().sum() + percept.attention.square().sum()
        loss.backward()  # type: ignore[no-untyped-call]
        features.append([parameter.grad for parameter in module.parameters()])
    torch.testing.assert_close(features[1], features[0], rtol=1e-4, atol=1e-5)


def test_a_rollout_map_follows_the_forced_pooling_weights() -> None:
    module, frames, context = make("self")
    rolled = build("self", (3, 37, 53), 3, rollout=True)
    rolled.load_state_dict(module.state_dict())
    with rolled.attention_forced(lambda weights: one_hot(weights, 4, 6)):
        shown = rolled(frames, context).attention
    assert bool((shown[:, :, 4, 6] >= 0.5).all())


def test_a_sequence_of_frames_is_forced_frame_by_frame() -> None:
    module, frames, context = make("dynamic")
    assert isinstance(module, Dynamic)
    sequence, contexts = frames[:, None].expand(-1, 2, -1, -1, -1), context[:, None].expand(-1, 2, -1)
    plain = module.sequence(sequence, None, contexts)
    with module.attention_forced(torch.clone) as forcing:
        torch.testing.assert_close(module.sequence(sequence, None, contexts), plain)
    assert forcing.passes == 3
    with module.attention_forced(lambda weights: one_hot(weights, 1, 2)):
        percept, state = module.sequence(sequence, None, contexts)
    assert bool((percept.attention[:, :, :, 1, 2] == 1).all())
    assert not torch.allclose(state, plain[1], atol=1e-3)


class Stranger(Perception):
    """A family that declares nothing: a softmax over a score of each patch, and what it reads."""

    def __init__(self, *, shows: str = "weights", cells_last: bool = True) -> None:
        super().__init__((3, 37, 41))
        self.features_dim, self.num_heads = 5, 2
        self.patches = Patches(self.image_shape, 7)
        self.grid = self.patches.grid
        self.scores = nn.Linear(7, 3, bias=False)
        self.project = nn.Linear(3 * 7, 5)
        self.shows, self.cells_last = shows, cells_last

    def perceive(self, frames: Tensor, context: Tensor | None) -> Percept:
        tokens = self.patches(frames).flatten(2).transpose(1, 2)
        if self.cells_last:
            weights = (9 * self.scores(tokens)).transpose(1, 2).softmax(dim=2)
        else:
            weights = (9 * self.scores(tokens)).softmax(dim=1).transpose(1, 2)
        features = self.project((weights @ tokens).flatten(1))
        shown = weights[:, [2, 0]]
        if self.shows == "another":
            shown = tokens[:, :, :2].transpose(1, 2).softmax(dim=2)
        elif self.shows == "constant":
            constant = frames.new_zeros(len(frames), 2, *self.grid.shape)
            constant[:, :, 0, 3] = 1.0
            return Percept(features, constant)
        elif self.shows == "declared":
            forceable(shown)
        return Percept(features, shown.reshape(len(frames), 2, *self.grid.shape))


@pytest.mark.parametrize("cells_last", [True, False])
def test_the_map_of_a_module_that_declares_none_is_found(cells_last: bool) -> None:
    torch.manual_seed(0)
    module, frames = Stranger(cells_last=cells_last), torch.rand(3, 3, 37, 41)
    plain = module(frames)
    with torch.no_grad(), module.attention_forced(torch.clone) as forcing:
        torch.testing.assert_close(module(frames), plain)
        assert forcing.point == "found"
    with torch.no_grad(), module.attention_forced(lambda weights: one_hot(weights, 2, 3)):
        forced = module(frames)
    tokens = module.patches(frames - 0.0).flatten(2).transpose(1, 2)
    weights = torch.stack([plain.attention[:, 1], plain.attention[:, 0], plain.attention[:, 0]], 1).flatten(2)
    weights[:, 0] = weights[:, 2] = one_hot(plain.attention, 2, 3).flatten(2)[:, 0]
    middle = (9 * module.scores(tokens)).softmax(dim=1)[:, :, 1]
    weights[:, 1] = middle
    torch.testing.assert_close(forced.features, module.project((weights @ tokens).flatten(1)))
    torch.testing.assert_close(forced.attention, one_hot(plain.attention, 2, 3))
    torch.testing.assert_close(module(frames), plain)


@pytest.mark.parametrize(
    ("shows", "point"), [("another", "found"), ("constant", "none"), ("declared", "declared")]
)
def test_a_map_that_is_only_shown_moves_nothing(shows: str, point: str) -> None:
    torch.manual_seed(0)
    module, frames = Stranger(shows=shows), torch.rand(3, 3, 37, 41)
    plain = module(frames)
    with torch.no_grad(), module.attention_forced(lambda weights: one_hot(weights, 2, 3)) as forcing:
        forced = module(frames)
    assert torch.equal(forced.features, plain.features)
    assert forcing.point == point


def test_a_constant_map_of_the_modules_own_memory_stays_as_it_is() -> None:
    class Constant(Stranger):
        map: Tensor

        def __init__(self) -> None:
            super().__init__()
            self.register_buffer("map", torch.ones(1, 2, *self.grid.shape) / self.patches.grid.ys.size)

        def perceive(self, frames: Tensor, context: Tensor | None) -> Percept:
            shown = self.map.div(self.map.sum((2, 3), keepdim=True))
            self.map.copy_(shown)
            return Percept(
                super().perceive(frames, context).features, self.map.expand(len(frames), -1, -1, -1)
            )

    module, frames = Constant(), torch.rand(3, 3, 37, 41)
    before = module(frames).attention.clone()
    with torch.no_grad(), module.attention_forced(lambda weights: one_hot(weights, 2, 3)):
        module(frames)
    assert torch.equal(module(frames).attention, before)


def test_attention_of_torch_is_not_fused_while_it_is_forced() -> None:
    class Encoder(Stranger):
        def __init__(self) -> None:
            super().__init__()
            self.num_heads = 1
            self.attend = nn.MultiheadAttention(7, 1, batch_first=True)
            self.query = nn.Parameter(torch.randn(1, 1, 7))
            self.project = nn.Linear(7, 5)

        def perceive(self, frames: Tensor, context: Tensor | None) -> Percept:
            tokens = self.patches(frames).flatten(2).transpose(1, 2)
            read, weights = self.attend(self.query.expand(len(frames), -1, -1), tokens, tokens)
            return Percept(self.project(read[:, 0]), weights.reshape(-1, 1, *self.grid.shape))

    torch.manual_seed(0)
    module, frames = Encoder().eval(), torch.rand(3, 3, 37, 41)
    plain = module(frames)
    with torch.no_grad(), module.attention_forced(lambda weights: one_hot(weights, 2, 3)) as forcing:
        assert not torch.allclose(module(frames).features, plain.features, atol=1e-4)
    assert forcing.point == "found"
    assert torch.backends.mha.get_fastpath_enabled()


def test_a_family_within_a_family_declares_for_itself() -> None:
    class Outer(Perception):
        def __init__(self) -> None:
            super().__init__((3, 37, 41))
            self.inner = Keypoints(self.image_shape, features_dim=5, num_heads=3)
            self.features_dim, self.num_heads, self.grid = 5, 1, self.inner.grid

        def perceive(self, frames: Tensor, context: Tensor | None) -> Percept:
            features, maps = self.inner(frames)
            return Percept(features, maps[:, [1]])

    torch.manual_seed(0)
    module, frames = Outer(), torch.rand(2, 3, 37, 41)
    plain = module(frames)
    with torch.no_grad(), module.attention_forced(lambda weights: one_hot(weights, 2, 3)) as forcing:
        assert not torch.allclose(module(frames).features, plain.features, atol=1e-4)
    assert forcing.point == "found"
    with module.inner.attention_forced(lambda weights: one_hot(weights, 2, 3)) as forcing:
        assert bool((module(frames).attention[:, 0, 2, 3] == 1).all())
    assert forcing.point == "declared"


def test_another_thread_is_not_forced() -> None:
    module, frames, context = make("query")
    plain, other = module(frames, context), []
    with module.attention_forced(lambda weights: one_hot(weights, 0, 0)):
        thread = threading.Thread(target=lambda: other.append(module(frames, context)))
        thread.start()
        thread.join()
    torch.testing.assert_close(other[0], plain)


def test_an_exception_ends_it() -> None:
    module, frames, context = make("query")
    plain = module(frames, context)
    with pytest.raises(ZeroDivisionError), module.attention_forced(lambda weights: weights / (1 // 0)):
        module(frames, context)
    torch.testing.assert_close(module(frames, context), plain)


@pytest.fixture
def random_state() -> Iterator[None]:
    before = torch.get_rng_state()
    yield
    assert torch.equal(torch.get_rng_state(), before)


def test_no_random_state_moves(random_state: None) -> None:
    module = Stranger.__new__(Stranger)
    with torch.random.fork_rng(devices=[]):
        Stranger.__init__(module)
        frames = torch.rand(2, 3, 37, 41)
    with torch.no_grad(), module.attention_forced(torch.clone):
        module(frames)


def test_random_numbers_of_a_module_move_on_as_by_one_pass() -> None:
    class Noisy(Stranger):
        def perceive(self, frames: Tensor, context: Tensor | None) -> Percept:
            return super().perceive(frames + 0.1 * torch.randn_like(frames), context)

    module, frames = Noisy(), torch.rand(2, 3, 37, 41)
    torch.manual_seed(1)
    plain = module(frames)
    after = torch.get_rng_state()
    torch.manual_seed(1)
    with torch.no_grad(), module.attention_forced(torch.clone):
        torch.testing.assert_close(module(frames), plain)
    assert torch.equal(torch.get_rng_state(), after)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda weights: weights[:1], r"expected forced attention torch.float32 \[3, 8, 8, 12\], got"),
        (lambda weights: weights.double(), "got torch.float64"),
        (lambda weights: None, "got NoneType"),
        (lambda weights: weights * 2, "divide each map by its sum"),
        (lambda weights: torch.full_like(weights, float("nan")), "divide each map by its sum"),
        (lambda weights: -weights, "of at least 0"),
    ],
)
def test_what_is_no_map_is_refused(change: object, message: str) -> None:
    module, frames, context = make("query")
    with pytest.raises(ValueError, match=message), module.attention_forced(change):  # type: ignore[arg-type]
        module(frames, context)


def test_what_cannot_be_forced_is_refused() -> None:
    with pytest.raises(ValueError, match="Cnn, whose map is uniform"):
        build("cnn", (3, 48, 48)).attention_forced(torch.clone).__enter__()
    module, *_ = make("query")
    with module.attention_forced(torch.clone), pytest.raises(ValueError, match="with forced attention"):
        module.attention_forced(torch.clone).__enter__()
    module.compile(backend="eager")
    with pytest.raises(ValueError, match="got it compiled"):
        module.attention_forced(torch.clone).__enter__()


@pytest.mark.parametrize(
    ("again", "message"),
    [
        (lambda weights: forceable(forceable(weights)), "got a second call of forceable"),
        (lambda weights: forceable(weights[:, :1]), "declare one weight for each cell"),
    ],
)
def test_a_module_declares_its_map_once(again: object, message: str) -> None:
    class Wrong(Stranger):
        def perceive(self, frames: Tensor, context: Tensor | None) -> Percept:
            percept = super().perceive(frames, context)
            return Percept(percept.features, again(percept.attention))  # type: ignore[operator]

    module, frames = Wrong(), torch.rand(3, 3, 37, 41)
    with pytest.raises(ValueError, match=message), module.attention_forced(torch.clone):
        module(frames)


def test_outside_of_a_forced_pass_the_weights_are_themselves() -> None:
    weights = F.softmax(torch.rand(2, 3, 5), dim=2)
    assert forceable(weights) is weights
