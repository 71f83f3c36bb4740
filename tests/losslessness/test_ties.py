"""When a text that differs from plain decoding may be a tie."""

from __future__ import annotations

import math

import pytest
import torch
from support.tiny_models import SMALL_VOCAB, random_model

from specdraft.errors import LosslessnessError
from specdraft.losslessness.certificate import largest_tie, near_ties
from specdraft.losslessness.ties import compare_greedy, rounding_between
from specdraft.models.cached_model import CachedModel
from specdraft.models.check_result import SelfCheck
from specdraft.models.self_check import self_check
from specdraft.traces.record import Trajectory

PROMPT = [5, 9, 13, 40, 41]


def continued(model: CachedModel, count: int) -> list[int]:
    text: list[int] = []
    while len(text) < count:
        text.append(int(model.after([*PROMPT, *text]).argmax()))
    return text


def other_way(model: CachedModel, plain: list[int], position: int) -> list[int]:
    """The text that takes the second-best token at a position."""
    best = model.after([*PROMPT, *plain[:position]]).topk(2).indices.tolist()
    second = next(token for token in best if token != plain[position])
    return [*plain[:position], second, *plain[position + 1 :]]


@pytest.fixture(scope="module")
def half() -> CachedModel:
    return CachedModel(random_model("llama").to(torch.bfloat16), SMALL_VOCAB)


def test_in_16_bit_a_difference_is_judged_at_its_place(half: CachedModel) -> None:
    """The self-check's rounding says nothing of it: a gap far below ten times that is no tie."""
    check, plain = self_check(half, "llama"), continued(half, 12)
    verdicts = []
    for position in range(len(plain)):
        differs = other_way(half, plain, position)
        gap, differ_by = rounding_between(half, PROMPT, plain[:position], [plain[position], differs[position]])
        try:
            tie = compare_greedy(half, check, PROMPT, plain, differs)
            assert tie == {"position": position, "gap": gap}
        except LosslessnessError as error:
            assert f"at token {position}" in str(error)
            tie = None
        assert (tie is not None) == (gap <= differ_by)
        verdicts.append((gap, tie is not None))
    assert any(not tie and gap < 10 * check.rounding for gap, tie in verdicts)
    assert all(not tie for gap, tie in verdicts if gap > 1)


def test_the_last_place_of_the_type_is_within_rounding(half: CachedModel) -> None:
    """On a GPU forwards of one text can agree to the bit where the decoded text differed by one last place."""
    logits = half.after(PROMPT)
    best, second = logits.topk(2).indices.tolist()
    _, differ_by = rounding_between(half, PROMPT, [], [best, second])
    assert differ_by >= sum(2.0 ** (math.floor(math.log2(abs(float(logits[token])))) - 7) for token in (best, second))


def test_equal_logits_are_a_tie(half: CachedModel) -> None:
    twins = CachedModel(random_model("llama").to(torch.bfloat16), SMALL_VOCAB)
    best = continued(twins, 1)[0]
    with torch.no_grad():
        twins.model.lm_head.weight[SMALL_VOCAB - 1] = twins.model.lm_head.weight[best]
    text = [best, 7, 8]
    tie = compare_greedy(twins, self_check(twins, "t"), PROMPT, text, [SMALL_VOCAB - 1, 7, 8])
    assert tie == {"position": 0, "gap": 0.0}


def test_the_limits_in_numbers() -> None:
    """As published: 1e-4 in float32, or ten times the self-check's error; in 16 bits what a tree's logits differ by."""
    assert largest_tie(SelfCheck(1e-6, 5.0, 1e-6, 2)) == pytest.approx(1e-4)
    assert largest_tie(SelfCheck(1e-4, 5.0, 1e-4, 2)) == pytest.approx(1e-3)
    assert largest_tie(SelfCheck(1e-6, 5.0, 0.25, 2)) == pytest.approx(0.5)
    gaps = torch.tensor([0.1, 0.3, 2.0, 0.2]).numpy()
    said = near_ties([Trajectory(gaps.astype("int64"), gaps)], SelfCheck(1e-6, 5.0, 0.125, 2))
    assert (said["near_ties"], said["share"], said["tokens"]) == (2, 0.5, 4)
