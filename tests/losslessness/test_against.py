"""Texts from elsewhere under a target: the fast way against one forward a token, ties, controls."""

from __future__ import annotations

from collections.abc import Sequence

import pytest
import torch
from support.tiny_models import EOS, random_model, tiny_llama

from specdraft.losslessness.against import (
    ANOTHER,
    BUG,
    ENGINE,
    EQUAL,
    SAME,
    TARGETS,
    TIE,
    Deviation,
    Given,
    Read,
    judge,
    read,
    up_to_end,
)
from specdraft.models.cached_model import CachedModel
from specdraft.sampling.distribution import Sampling, standardise

PROMPTS = ([5, 9, 13, 40, 41], [7], [50, 51, 52])
GREEDY = Sampling()
ENDS = frozenset({EOS})


@pytest.fixture(scope="module")
def target() -> CachedModel:
    return CachedModel(tiny_llama(), 258)


def continued(model: CachedModel, prompt: Sequence[int], count: int) -> list[int]:
    text: list[int] = []
    while len(text) < count:
        text.append(int(model.after([*prompt, *text]).argmax()))
    return text


def texts_of(model: CachedModel, sizes: Sequence[int] = (9, 4, 14)) -> list[Given]:
    return [Given(str(n), list(p), continued(model, p, s)) for n, (p, s) in enumerate(zip(PROMPTS, sizes, strict=True))]


def one_by_one(model: CachedModel, text: Given, sampling: Sampling) -> list[Deviation]:
    """The obvious way: a forward for each token."""
    found = []
    for position, token in enumerate(text.token_ids):
        logits = model.after([*text.prompt_ids, *text.token_ids[:position]])
        possible = standardise(logits, sampling) > 0
        if not possible[token]:
            gap = float(logits[possible].min() - logits[token])
            found.append(Deviation(position, token, int(logits.argmax()), gap))
    return found


def test_the_targets_own_texts_are_equal(target: CachedModel) -> None:
    for text in read(target, texts_of(target), GREEDY, ENDS):
        assert (text.deviations, judge(text, 0.0).verdict) == ([], EQUAL)


@pytest.mark.parametrize("sampling", [GREEDY, Sampling(0.7, top_k=5), Sampling(1.0, top_p=0.6)], ids=repr)
@pytest.mark.parametrize("name", ["llama", "gpt2"])
def test_one_forward_says_what_one_a_token_says(name: str, sampling: Sampling) -> None:
    model = CachedModel(random_model(name), 96)
    changed = [
        t._replace(token_ids=[(token * 7 + n) % 96 for n, token in enumerate(t.token_ids)]) for t in texts_of(model)
    ]
    changed[0].token_ids[0] = continued(model, PROMPTS[0], 1)[0]
    for text, given in zip(read(model, changed, sampling, ENDS), changed, strict=True):
        slow = one_by_one(model, given, sampling)
        assert slow and [d[:3] for d in text.deviations] == [d[:3] for d in slow]
        assert [d.gap for d in text.deviations] == pytest.approx([d.gap for d in slow], abs=1e-4)


def test_a_planted_token_is_found_where_it_is(target: CachedModel) -> None:
    texts = texts_of(target)
    for position in range(14):
        wrong = [*texts[2].token_ids]
        wrong[position] = (wrong[position] + 1) % 258
        judged = [
            judge(text, 1e-4) for text in read(target, [*texts[:2], texts[2]._replace(token_ids=wrong)], GREEDY, ENDS)
        ]
        assert [text.verdict for text in judged] == [EQUAL, EQUAL, BUG]
        first = judged[2].first
        assert first is not None and first[:3] == (position, wrong[position], texts[2].token_ids[position])


def test_equal_logits_are_a_tie_and_the_rest_is_judged_too(target: CachedModel) -> None:
    twins = CachedModel(tiny_llama(), 258)
    own = texts_of(twins)[2]
    other = next(token for token in range(2, 258) if token not in own.token_ids)
    with torch.no_grad():
        for matrix in (twins.model.lm_head.weight, twins.model.get_input_embeddings().weight):
            matrix[other] = matrix[own.token_ids[3]]
    changed = own._replace(token_ids=[*own.token_ids[:3], other, *own.token_ids[4:]])
    (text,) = read(twins, [changed], GREEDY, ENDS)
    judged = judge(text, 0.0)
    assert judged.verdict == (TIE if other > own.token_ids[3] else EQUAL)
    wrong = changed._replace(token_ids=[*changed.token_ids[:8], 3, *changed.token_ids[9:]])
    (text,) = read(twins, [wrong], GREEDY, ENDS)
    assert (judge(text, 0.0).verdict, judge(text, 0.0).first) == (
        BUG,
        text.deviations[[d.position for d in text.deviations].index(8)],
    )


def test_the_tolerance_decides() -> None:
    text = Read(Given("a", [1], [2, 3, 4]), [Deviation(0, 2, 9, 0.5), Deviation(2, 4, 8, 0.2)], False)
    verdicts = {limit: judge(text, limit) for limit in (0.1, 0.2, 0.3, 0.5)}
    assert [(v.verdict, v.first) for v in verdicts.values()] == [
        (BUG, text.deviations[0]),
        (BUG, text.deviations[0]),
        (BUG, text.deviations[0]),
        (TIE, text.deviations[0]),
    ]
    assert verdicts[0.2].counts == {"tie": 1, "engine": 0, "bug": 1}


@pytest.mark.parametrize(
    ("control", "said", "verdict"),
    [
        ([2, 3, 4], SAME, ENGINE),
        ([2, 3, 8, 1], TARGETS, BUG),
        ([2, 3, 7], ANOTHER, BUG),
        ([2, 9, 4], None, BUG),  # it went another way before
        ([2, 3], None, BUG),
    ],
)
def test_the_same_engine_without_speculation(control: list[int], said: str | None, verdict: str) -> None:
    text = Read(Given("a", [1], [2, 3, 4]), [Deviation(2, 4, 8, 0.5)], False)
    judged = judge(text, 1e-4, Read(Given("a", [1], control), [], False))
    assert (judged.verdict, judged.control) == (verdict, said)
    other_prompt = judge(text, 1e-4, Read(Given("a", [5], control), [], False))
    assert (other_prompt.verdict, other_prompt.control) == (BUG, None)


def test_a_text_ends_with_its_first_end(target: CachedModel) -> None:
    assert up_to_end([5, 6, EOS, 7, EOS], ENDS) == [5, 6, EOS]
    assert up_to_end([5, 6], ENDS) == [5, 6]
    own = texts_of(target)[0]
    (cut,) = read(target, [own._replace(token_ids=own.token_ids[:5])], GREEDY, ENDS)
    following = own.token_ids[5]
    assert cut.goes_on and following not in ENDS
    assert [
        t.goes_on for t in read(target, [own._replace(token_ids=own.token_ids[:5])], GREEDY, frozenset({following}))
    ] == [False]


def test_no_number_is_no_tie() -> None:
    broken = CachedModel(tiny_llama(), 258)
    with torch.no_grad():
        broken.model.lm_head.weight[7] = torch.nan
    (text,) = read(broken, [Given("a", [5, 9], [3, 4])], GREEDY, ENDS)
    assert judge(text, 1e9).verdict == BUG
