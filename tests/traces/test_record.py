from __future__ import annotations

from collections import Counter
from collections.abc import Sequence

import numpy as np
import pytest
import torch
from support.drafting import annotate, record_all
from support.tiny_models import SMALL_VOCAB, random_model
from transformers import LlamaForCausalLM

from specdraft.decoding.decode import decode_plainly
from specdraft.decoding.ending import Ending
from specdraft.decoding.verifier import Verifier
from specdraft.drafters.base import TOP_K, Annotation
from specdraft.drafters.loaded.model import Said
from specdraft.drafters.loaded.ranking import rank_tokens
from specdraft.drafters.pair import Pair
from specdraft.models import batch
from specdraft.models.cached_model import CachedModel
from specdraft.sampling.distribution import Sampling
from specdraft.traces.record import Trajectory

LENGTHS = [1, 13, 5, 2, 9, 5]
NAMES = [
    "llama",
    "mistral-sliding",
    "gemma3",
    "gemma3-all-sliding",
    "qwen2-sliding",
    "gpt2",
    "opt",
]  # windows of 4 tokens


def ragged(vocab: int = SMALL_VOCAB) -> list[list[int]]:
    generator = torch.Generator().manual_seed(3)
    return [torch.randint(2, vocab, (length,), generator=generator).tolist() for length in LENGTHS]


def plainly(model: CachedModel, prompt: list[int], ending: Ending) -> list[int]:
    return decode_plainly(Verifier(model), Sampling(), prompt, ending)


@torch.inference_mode()
def free(model: CachedModel, text: Sequence[int]) -> torch.Tensor:
    """`[vocab]` logits after a text, without a cache and without a batch."""
    return model.model(input_ids=torch.tensor([list(text)]), use_cache=False).logits[0, -1, : model.vocab].float()


def slow_annotation(
    model: CachedModel, prompt: list[int], tokens: list[int]
) -> list[tuple[int, list[int], list[float], float]]:
    """Rank, best tokens, their probabilities and the entropy at each position."""
    found = []
    for position, token in enumerate(tokens):
        logits = free(model, [*prompt, *tokens[:position]])
        order = sorted(range(model.vocab), key=lambda i, logits=logits: (-float(logits[i]), i))
        probs = torch.softmax(logits.double(), -1)
        entropy = -sum(p * np.log(p) for p in probs.tolist() if p > 0)
        found.append((order.index(token) if position else -1, order[:TOP_K], probs[order[:TOP_K]].tolist(), entropy))
    return found


def check_annotation(made: Annotation, model: CachedModel, prompt: list[int], tokens: list[int]) -> None:
    ranks, top_ids, top_probs, entropy = zip(*slow_annotation(model, prompt, tokens), strict=True)
    assert made.ranks.tolist() == list(ranks)
    assert made.top_ids.tolist() == list(top_ids)
    np.testing.assert_allclose(made.top_probs, top_probs, rtol=1e-3, atol=1e-5)
    np.testing.assert_allclose(made.entropy, entropy, rtol=1e-3, atol=1e-4)


@pytest.mark.parametrize("name", NAMES)
def test_a_ragged_batch_is_recorded_as_each_prompt_alone(name: str) -> None:
    model, prompts = CachedModel(random_model(name), SMALL_VOCAB), ragged()
    references = [plainly(model, prompt, Ending(14)) for prompt in prompts]
    ((common, _),) = Counter(token for text in references for token in text).most_common(1)
    for ending in (Ending(14), Ending(14, frozenset([common])), Ending(5, frozenset([references[1][2]]))):
        made = record_all(model, prompts, ending)
        assert [one.tokens.tolist() for one in made] == [ending.cut(0, text) for text in references]
        assert all((one.tokens.dtype, one.gaps.dtype) == (np.int64, np.float32) for one in made)
    assert len({tuple(r) for r in references}) > 3


@pytest.mark.parametrize("name", ["llama", "mistral-sliding", "gemma3"])
def test_gaps_are_those_between_the_two_best_logits(name: str) -> None:
    model, prompts = CachedModel(random_model(name), SMALL_VOCAB), ragged()
    for prompt, one in zip(prompts, record_all(model, prompts, Ending(8)), strict=True):
        assert len(one.gaps) == len(one.tokens)
        for position, gap in enumerate(one.gaps.tolist()):
            best = free(model, [*prompt, *one.tokens[:position].tolist()]).topk(2)
            assert int(best.indices[0]) == one.tokens[position]
            assert gap == pytest.approx(float(best.values[0] - best.values[1]), abs=2e-4)


def test_every_ending(tiny_pair: Pair) -> None:
    model, prompts = tiny_pair.target, ragged(tiny_pair.files.shared_ids)
    whole = [plainly(model, prompt, Ending(12)) for prompt in prompts]
    lasts = set()
    for ending in (Ending(1), Ending(2), *(Ending(12, frozenset([text[i]])) for text in whole[:2] for i in (0, 5, 11))):
        made = record_all(model, prompts, ending)
        for text, one in zip(whole, made, strict=True):
            cut = [i for i, token in enumerate(text) if token in ending.eos_ids]
            assert one.tokens.tolist() == text[: min(ending.max_new_tokens, *(i + 1 for i in cut[:1]), len(text))]
            lasts.add(len(one.tokens) - 1)
    assert {0, 1, 11} < lasts


@pytest.mark.parametrize("name", ["llama", "mistral-sliding", "gemma3"])
def test_texts_in_slices_are_texts_as_a_whole(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """Prompts are read a few tokens at a time, and of texts there are the logits of a few tokens at a time."""
    model, prompts = CachedModel(random_model(name), SMALL_VOCAB), ragged()
    texts = record_all(model, prompts, Ending(11))
    whole = annotate(model, prompts, texts)
    monkeypatch.setattr(batch, "PREFILL_TOKENS", 4 * len(prompts))  # the longest prompt has 13 tokens
    monkeypatch.setitem(batch.LOGITS, "cpu", 3 * SMALL_VOCAB * len(prompts))
    monkeypatch.setattr(batch, "LEAST_TOKENS", 1)
    for text, other in zip(texts, record_all(model, prompts, Ending(11)), strict=True):
        assert other.tokens.tolist() == text.tokens.tolist()
        np.testing.assert_allclose(other.gaps, text.gaps, atol=1e-4)
    for one, other in zip(whole, annotate(model, prompts, texts), strict=True):
        assert np.array_equal(other.ranks, one.ranks)
        assert np.array_equal(other.top_ids, one.top_ids)
        np.testing.assert_allclose(other.entropy, one.entropy, atol=1e-4)


def test_logits_are_there_for_a_slice_at_a_time(tiny_pair: Pair, monkeypatch: pytest.MonkeyPatch) -> None:
    """However many texts and tokens there are."""
    model, prompts = tiny_pair.drafter.model, ragged(tiny_pair.files.shared_ids)
    texts = record_all(model, prompts, Ending(11))
    monkeypatch.setitem(batch.LOGITS, "cpu", 2 * model.vocab * len(prompts))
    monkeypatch.setattr(batch, "LEAST_TOKENS", 1)
    shapes: list[tuple[int, ...]] = []
    hook = model.model.lm_head.register_forward_hook(lambda _, __, out: shapes.append(tuple(out.shape)))
    annotate(model, prompts, texts)
    hook.remove()
    assert [shape[:2] for shape in shapes] == [(6, 5), *[(6, 2)] * 5]  # five lengths of prompts; ten tokens


@pytest.mark.parametrize("name", ["llama", "mistral-sliding", "gemma3"])
def test_annotations_are_those_of_one_forward_for_each_position(name: str) -> None:
    target, prompts = CachedModel(random_model(name), SMALL_VOCAB), ragged()
    draft = CachedModel(random_model(name), SMALL_VOCAB)
    with torch.no_grad():
        for i, weight in enumerate(draft.model.parameters()):
            weight.add_(torch.randn(weight.shape, generator=torch.Generator().manual_seed(i)), alpha=0.04)
    reference = plainly(target, prompts[0], Ending(10))
    trajectories = record_all(target, prompts, Ending(10, frozenset([reference[0], reference[4]])))
    assert len({len(one.tokens) for one in trajectories}) > 1
    made = annotate(draft, prompts, trajectories)
    for prompt, trajectory, one in zip(prompts, trajectories, made, strict=True):
        check_annotation(one, draft, prompt, trajectory.tokens.tolist())
        assert (one.ranks.dtype, one.top_ids.dtype, one.top_probs.dtype, one.entropy.dtype) == (
            np.int32,
            np.int32,
            np.float32,
            np.float32,
        )
    ranks = np.concatenate([one.ranks[1:] for one in made])
    assert 0 < (ranks == 0).mean() < 1
    assert ranks.max() > 1


def test_the_tiny_pair(tiny_pair: Pair) -> None:
    prompts = ragged(tiny_pair.files.shared_ids)
    trajectories = record_all(tiny_pair.target, prompts, Ending(9, tiny_pair.eos_ids))
    for prompt, trajectory, one in zip(
        prompts, trajectories, annotate(tiny_pair.drafter.model, prompts, trajectories), strict=True
    ):
        check_annotation(one, tiny_pair.drafter.model, prompt, trajectory.tokens.tolist())


def test_a_batch_of_texts_of_one_token(tiny_pair: Pair) -> None:
    prompts = ragged(tiny_pair.files.shared_ids)
    made = annotate(tiny_pair.drafter.model, prompts, record_all(tiny_pair.target, prompts, Ending(1)))
    assert [one.ranks.tolist() for one in made] == [[-1]] * len(prompts)
    assert {one.top_ids.shape for one in made} == {(1, TOP_K)}


def test_trajectories_from_a_file_cannot_be_written_to_and_need_not_be(tiny_pair: Pair) -> None:
    tokens = np.array([5, 6, 7])
    tokens.flags.writeable = False
    (one,) = annotate(tiny_pair.drafter.model, [[3, 4]], [Trajectory(tokens, np.ones(3, dtype=np.float32))])
    check_annotation(one, tiny_pair.drafter.model, [3, 4], [5, 6, 7])


def test_equal_logits_are_ordered_by_token() -> None:
    values = torch.randint(-2, 3, (40, 30), generator=torch.Generator().manual_seed(0)).float()
    values[values == 0] = torch.tensor([0.0, -0.0]).repeat(int((values == 0).sum()))[: int((values == 0).sum())]
    tokens = torch.randint(0, 30, (40,), generator=torch.Generator().manual_seed(1))
    made = Said.of(values[None], tokens[None]).annotation(0, 40)
    order = rank_tokens(values, 30)
    for position in range(40):
        row = values[position].tolist()
        slow = sorted(range(30), key=lambda i, row=row: (-row[i], i))
        assert order[position].tolist() == slow
        assert made.ranks[position] == (slow.index(int(tokens[position])) if position else -1)
        assert made.top_ids[position].tolist() == slow[:TOP_K]


def test_a_vocabulary_smaller_than_the_top_is_kept_whole(tiny_pair: Pair) -> None:
    model = CachedModel(tiny_pair.drafter.model.model, 10)
    (one,) = annotate(model, [[3, 4]], [Trajectory(np.array([5, 6, 7]), np.ones(3, dtype=np.float32))])
    assert one.top_ids.shape == (3, 10)
    assert one.top_probs.sum(1) == pytest.approx(1, abs=1e-5)


def test_models_are_left_without_a_trace(tiny_pair: Pair) -> None:
    """Recording keeps a cache of its own: a sequence in the model's cache goes on as before."""
    model, prompt = CachedModel(tiny_pair.target.model, tiny_pair.target.vocab), ragged(SMALL_VOCAB)[1]
    assert isinstance(model.model, LlamaForCausalLM)
    model.prefill(prompt[:6])
    record_all(model, ragged(SMALL_VOCAB), Ending(3))
    torch.testing.assert_close(model.prefill(prompt[6:]).logits, free(model, prompt), atol=1e-4, rtol=1e-4)
