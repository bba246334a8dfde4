"""The tokenizer, queries from tokens, and the family "instruction"."""

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor
from torch.nn import functional as F

from robot_attn.families._instruction import Instruct, Instruction
from robot_attn.vocabulary import MAX_TOKENS, PAD, SYNONYMS, WORDS, detokenize, tokenize

SHAPE = (3, 40, 36)


@given(st.lists(st.sampled_from(WORDS), min_size=1, max_size=MAX_TOKENS))
def test_words_round_trip(words: list[str]) -> None:
    tokens = tokenize(" ".join(words))
    assert tokens.shape == (MAX_TOKENS,) and tokens.dtype == torch.int64
    assert bool((tokens[len(words) :] == PAD).all()) and bool((tokens[: len(words)] != PAD).all())
    assert detokenize(tokens) == " ".join(words)
    assert detokenize(tokens.float()) == detokenize(tokens.tolist()) == " ".join(words)


def test_tokens_of_words_are_stable() -> None:
    """Saved weights depend on these ids: words are appended and never removed."""
    assert tokenize("the red ball")[:4].tolist() == [1, 13, 26, PAD]
    assert tokenize("then black goal next short turn last")[:7].tolist() == [12, 25, 35, 47, 53, 65, 76]
    assert len(set(WORDS)) == len(WORDS) >= 76


def test_synonyms_share_a_token() -> None:
    assert torch.equal(tokenize("The GREY cube, then: a ball!"), tokenize("the gray box then a sphere"))
    assert set(SYNONYMS.values()) <= set(WORDS) and not set(SYNONYMS) & set(WORDS)
    assert detokenize(tokenize("grab the ball")) == "grasp the sphere"


def test_invalid_text_raises_value_error() -> None:
    long = "red " * (MAX_TOKENS + 1)
    for match, call in (
        (
            r"expected a word among .*, got 'spher': did you mean 'sphere'\?$",
            lambda: tokenize("the red spher"),
        ),
        (r"got 'cubes': did you mean 'cube'\?$", lambda: tokenize("the red cubes")),
        ("of 1 to 16 words, got 0: ''", lambda: tokenize("")),
        ("of 1 to 16 words, got 17: ", lambda: tokenize(long)),
        ("of type str, got int", lambda: tokenize(3)),  # type: ignore[arg-type]
        ("whole numbers from 0 to 76, .* got 77", lambda: detokenize([1, 77])),
        ("got -1", lambda: detokenize([1, -1])),
        ("got 1.5", lambda: detokenize(torch.tensor([1.0, 1.5]))),
        ("got nan", lambda: detokenize(torch.tensor([float("nan")]))),
        (r"expected one row of tokens \[L\]", lambda: detokenize(torch.ones(2, 3))),
        ("expected a word among .*, got 'bal'", lambda: Instruction(SHAPE, instruction="the red bal")),
        ("expected context_dim of at least 16, .* got 15", lambda: Instruction(SHAPE, 15, instruction=None)),
        ("expected word_dim as", lambda: Instruction(SHAPE, word_dim=0)),
    ):
        with pytest.raises(ValueError, match=match):
            call()


@given(
    batch=st.sampled_from([1, 2, 3]),
    words=st.integers(1, MAX_TOKENS),
    sizes=st.tuples(*[st.sampled_from([1, 2, 3, 5, 7])] * 3),
    seed=st.integers(0, 2**31),
)
def test_each_head_attends_to_its_own_mixture_of_words(
    batch: int, words: int, sizes: tuple[int, ...], seed: int
) -> None:
    heads, size, out = sizes
    torch.manual_seed(seed)
    module = Instruct(heads, size, out).double()
    tokens = torch.zeros(batch, MAX_TOKENS, dtype=torch.int64)
    tokens[:, :words] = torch.randint(1, len(WORDS) + 1, (batch, words))
    queries = module(tokens)
    for row in range(batch):
        embedded = module.words.weight[tokens[row, :words]] + module.places[:words]
        for head in range(heads):
            weights = (embedded @ module.questions[head] / size**0.5).softmax(dim=0)
            expected = module.to_query.weight @ (weights @ embedded)
            torch.testing.assert_close(queries[row, head], expected, rtol=1e-10, atol=1e-10)


def test_an_empty_instruction_gives_a_zero_query() -> None:
    module = Instruct(2, 5, 7)
    queries = module(torch.zeros(3, MAX_TOKENS, dtype=torch.int64))
    assert torch.equal(queries, torch.zeros(3, 2, 7))
    silent = Instruction(SHAPE, MAX_TOKENS, instruction=None)
    percept = silent(torch.rand(2, *SHAPE), torch.zeros(2, MAX_TOKENS))
    torch.testing.assert_close(percept.attention, torch.full((2, 4, 9, 8), 1 / 72))


def test_the_gradient_of_the_words() -> None:
    torch.manual_seed(0)
    module = Instruct(2, 3, 2).double()
    tokens = tokenize("the red ball")[None]
    inputs = [parameter.detach().clone().requires_grad_() for parameter in module.parameters()]
    names = [name for name, _ in module.named_parameters()]

    def run(*parameters: Tensor) -> Tensor:
        given = dict(zip(names, parameters, strict=True))
        queries: Tensor = torch.func.functional_call(module, given, (tokens,))
        return queries

    assert torch.autograd.gradcheck(run, inputs)
    module(tokens).square().sum().backward()
    assert module.words.weight.grad is not None
    said = module.words.weight.grad.abs().sum(dim=1).nonzero().flatten()
    assert said.tolist() == sorted(tokens[0, :3].tolist())


def test_a_fixed_instruction_equals_the_same_text_in_every_frame() -> None:
    torch.manual_seed(0)
    by_frame = Instruction(SHAPE, 2 + MAX_TOKENS, instruction=None)
    fixed = Instruction(SHAPE, 2, instruction="find the small blue cube")
    fixed.load_state_dict(by_frame.state_dict())
    frames, context = torch.rand(3, *SHAPE), torch.randn(3, 2)
    tokens = tokenize("find the little blue box").float().expand(3, -1)
    for one, other in zip(
        fixed(frames, context), by_frame(frames, torch.cat([context, tokens], 1)), strict=True
    ):
        torch.testing.assert_close(one, other, rtol=1e-6, atol=1e-6)


def test_each_frame_has_its_text_and_other_context_does_not_affect_attention() -> None:
    torch.manual_seed(0)
    module = Instruction(SHAPE, 1 + MAX_TOKENS, instruction=None)
    frame = torch.rand(1, *SHAPE)
    texts = torch.stack([tokenize(text) for text in ("the red ball", "the blue box", "a red ball")]).float()
    contexts = torch.cat([torch.tensor([[0.0], [0.0], [5.0]]), texts], dim=1)
    together = module(frame.expand(3, -1, -1, -1), contexts)
    for index in range(3):
        for one, other in zip(module(frame, contexts[index : index + 1]), together, strict=True):
            torch.testing.assert_close(one[0], other[index])
    assert not torch.allclose(together.attention[0], together.attention[1], atol=1e-5)
    contexts[0, 0] = 3.0
    moved = module(frame, contexts[:1])
    torch.testing.assert_close(moved.attention[0], together.attention[0])
    assert not torch.allclose(moved.features[0], together.features[0])


def test_word_order_affects_the_query() -> None:
    """The order of words matters: "left of the red box" is not "red left of the box"."""
    torch.manual_seed(0)
    module = Instruct(1, 8, 8)
    one, other, same = (
        module(tokenize(t)[None]) for t in ("red ball box", "box ball red", "red sphere cube")
    )
    assert torch.equal(one, same) and not torch.allclose(one, other, atol=1e-4)


def test_invalid_tokens_raise_value_error() -> None:
    module = Instruction(SHAPE, MAX_TOKENS, instruction=None)
    frames, good = torch.rand(1, *SHAPE), tokenize("the red ball").float()[None]
    module(frames, good)
    for wrong in (good + 0.25, good - 5, good * 10, good / 76):
        with pytest.raises(
            ValueError, match=r"expected tokens as whole numbers from 0 to 76.* without normalisation"
        ):
            module(frames, wrong)
    with pytest.raises(ValueError, match=r"expected context torch.float32 \[1, 16\]"):
        module(frames)


@pytest.mark.parametrize("instruction", [None, "the red ball"])
def test_every_parameter_learns(instruction: str | None) -> None:
    torch.manual_seed(0)
    module = Instruction(SHAPE, 2 + MAX_TOKENS, instruction=instruction)
    context = torch.cat([torch.randn(4, 2), tokenize("a green box").float().expand(4, -1)], dim=1)
    module(torch.rand(4, *SHAPE), context).features.square().sum().backward()
    for name, parameter in module.named_parameters():
        assert parameter.grad is not None and bool((parameter.grad != 0).any()), name


@pytest.mark.parametrize("instruction", [None, "the red ball"])
def test_compiles_to_one_graph_with_the_same_result(instruction: str | None) -> None:
    module = Instruction(SHAPE, MAX_TOKENS, instruction=instruction)
    frames = torch.rand(2, *SHAPE)
    context = torch.stack([tokenize(text) for text in ("the blue box", "find a ball")]).float()
    program = torch.export.export(module, (frames, context))
    for one, other in zip(program.module()(frames, context), module(frames, context), strict=True):
        torch.testing.assert_close(one, other)


@pytest.mark.parametrize("batch", [0, 1])
def test_small_batches(batch: int) -> None:
    module = Instruction(SHAPE, MAX_TOKENS, instruction=None)
    tokens = tokenize("the red ball").float().expand(batch, -1)
    percept = module(torch.rand(batch, *SHAPE), tokens)
    assert percept.features.shape == (batch, 128) and percept.attention.shape == (batch, 4, 9, 8)


def test_it_learns_to_attend_to_what_both_words_name() -> None:
    """Six objects of three colours and two shapes: one word alone finds at most half of them."""
    torch.manual_seed(0)
    pairs = [(colour, shape) for colour in range(3) for shape in range(2)]
    words = ("red", "green", "blue"), ("box", "cylinder")
    texts = torch.stack([tokenize(f"the {words[0][c]} {words[1][s]}") for c, s in pairs]).float()
    spots = [(top, left) for top in (4, 20, 36) for left in (4, 20)]

    def sample_batch(batch: int) -> tuple[Tensor, Tensor]:
        """Frames, and for each of the six objects the patch that covers it, [batch, 6]."""
        frames, cells = torch.zeros(batch, 3, 48, 40), torch.zeros(batch, 6, dtype=torch.int64)
        for index in range(batch):
            for thing, spot in enumerate(torch.randperm(6).tolist()):
                (colour, shape), (top, left) = pairs[thing], spots[spot]
                top, left = (side + 4 * int(torch.randint(2, ())) for side in (top, left))
                frames[index, colour, top : top + 8, left : left + 8] = 0.9
                if shape:
                    frames[index, colour, top : top + 8, left + 2 : left + 6] = 0.0
                cells[index, thing] = top // 4 * 9 + left // 4
        return frames, cells

    module = Instruction((3, 48, 40), MAX_TOKENS, instruction=None, num_heads=1)
    optimizer = torch.optim.Adam(module.parameters(), lr=3e-3)
    frames, cells = sample_batch(256)
    for _ in range(150):
        rows, targets = torch.randint(256, (48,)), torch.randint(6, (48,))
        attention = module(frames[rows], texts[targets]).attention.flatten(1)
        optimizer.zero_grad()
        F.nll_loss(attention.clamp_min(1e-9).log(), cells[rows, targets]).backward()
        optimizer.step()
    frames, cells = sample_batch(100)
    for thing, text in enumerate(texts):
        with torch.no_grad():
            found = module(frames, text.expand(100, -1)).attention.flatten(1).argmax(dim=1)
        assert float((found == cells[:, thing]).float().mean()) > 0.9
