"""Length policies as values: each against its rule, written out."""

from __future__ import annotations

from math import sqrt

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from specdraft.config import bundled_config_dir
from specdraft.errors import ConfigError
from specdraft.prediction.length import LengthPolicy, Lengths, Said, registry
from specdraft.prediction.length.base import unread
from specdraft.prediction.length.constant import Constant
from specdraft.prediction.length.goodput import Goodput
from specdraft.prediction.length.hf_confidence import HfConfidence, best_threshold
from specdraft.prediction.length.hf_heuristic import HfHeuristic
from specdraft.prediction.length.sglang_adaptive import SglangAdaptive
from specdraft.prediction.length.svip import Svip
from specdraft.prediction.length.vllm_table import VllmTable

STEP_S = np.array([1.0, 1.3, 1.6, 1.9, 2.2])


def lengths_of(text: Lengths, accepted: list[int]) -> list[int]:
    """The length of each step, in which as many tokens were accepted as of these there are sent."""
    lengths = []
    for reach in accepted:
        lengths.append(text.next())
        text.observe(min(reach, lengths[-1]), unread(lengths[-1]))
    return lengths


def test_every_policy_has_a_config() -> None:
    assert {path.stem for path in (bundled_config_dir() / "length").glob("*.yaml")} == set(registry())


def test_the_heuristic() -> None:
    assert lengths_of(HfHeuristic(initial=3).begin(6), [9, 9, 9, 0, 5, 5, 4]) == [3, 5, 6, 6, 5, 6, 5]
    assert lengths_of(HfHeuristic(initial=2).begin(6), [0, 0, 0, 1]) == [2, 1, 1, 1]
    assert HfHeuristic(initial=9).begin(4).next() == 4


def test_the_unsure_token_is_sent_too() -> None:
    said = Said(np.cumsum(np.log([0.9, 0.5, 0.3, 0.8])), np.zeros(4, dtype=np.float32))
    assert [HfConfidence(threshold=c).begin(4).length(said) for c in (0.0, 0.4, 0.48, 0.6, 0.95)] == [4, 3, 3, 2, 1]


def test_svip() -> None:
    entropy = np.array([0.1, 0.5, 0.7, 0.1], dtype=np.float32)
    assert sqrt(0.15 * 0.5) < 0.3 < sqrt(0.15 * 0.7)
    assert Svip().begin(4).length(Said(np.zeros(4), entropy)) == 3


@given(st.lists(st.tuples(st.booleans(), st.integers(1, 8)), min_size=2, max_size=12))
def test_the_threshold_is_the_cheapest_of_all(judged: list[tuple[bool, int]]) -> None:
    """Every probability is tried as a threshold: 1 for each false positive, 3 for each false negative, as shares."""
    matches, probs = np.array([m for m, _ in judged]), np.array([p / 8 for _, p in judged])
    if matches.all() or not matches.any():
        return

    def cost(threshold: float) -> float:
        sure = probs >= threshold
        return float((sure & ~matches).sum() / (~matches).sum() + 3 * (1 - (sure & matches).sum() / matches.sum()))

    costs = {threshold: cost(threshold) for threshold in sorted(set(probs.tolist()), reverse=True)}
    assert costs[best_threshold(matches, probs)] == pytest.approx(min(costs.values()))


def test_the_threshold_moves_with_what_was_judged() -> None:
    text = HfConfidence(threshold=0.5, adapt=True).begin(4)
    said = Said(np.cumsum(np.log([0.9, 0.8, 0.2, 0.7])), np.zeros(4, dtype=np.float32))
    text.observe(3, said)  # 0.9, 0.8 and 0.2 were right, 0.7 was not: four tokens are too few
    assert text.length(said) == 3
    text.observe(1, said)  # 0.9 was right, 0.8 was not; nobody knows of the others
    assert text.length(said) == 4  # from 0.2 on all are sure: to end before a right token is dearer
    still = HfConfidence(threshold=0.5).begin(4)
    for accepted in (3, 1):
        still.observe(accepted, said)
    assert still.length(said) == 3


def test_sglang_moves_where_its_documentation_says() -> None:
    """With the defaults: from 3 to 5 above 2.5, to 1 at 0.25 or less; looked at after 15, 20, ... steps."""
    lengths = lengths_of(SglangAdaptive().begin(8), [3] * 40)
    assert lengths[:15] == [3] * 15 and lengths[15] == 5
    assert lengths_of(SglangAdaptive().begin(8), [7] * 40)[-1] == 7
    falling = lengths_of(SglangAdaptive().begin(8), [0] * 40)
    assert falling[:15] == [3] * 15 and falling[15] == 1
    mean, steps = 2.0, 0
    while mean > 0.25:
        mean, steps = 0.8 * mean, steps + 1
    assert steps <= 15, "else it would not fall yet"
    assert lengths_of(SglangAdaptive(candidate_steps=[2, 4], initial_steps=3).begin(8), [0]) == [4]
    probing = SglangAdaptive(candidate_steps=[0, 2], initial_steps=0, warmup=0, update_interval=2, down_hysteresis=0)
    assert lengths_of(probing.begin(8), [0] * 9) == [0, 0, 2, 2, 2, 2, 0, 0, 2]
    capped = SglangAdaptive(ceiling_coeff=1.0, warmup=0, update_interval=1)
    assert lengths_of(capped.begin(8), [1, 1, 1])[1:] == [1, 1]


def test_the_table() -> None:
    policy = VllmTable(table=[[1, 2, 4], [5, 8, 2], [16, 32, 0]])
    assert [policy.fixed(3, batch) for batch in (1, 2, 3, 5, 8, 9, 15)] == [3, 3, 3, 2, 2, 2, 2]
    assert policy.misfit(3, 8) is None and "nothing at a batch of 64" in str(policy.misfit(3, 64))
    assert not policy.sizes and policy.label == "vllm_table-1to2x4-5to8x2-16to32x0"


def test_goodput_is_the_best_of_all_lengths() -> None:
    text, accepted, judged = Goodput(decay=0.5, prior_tokens=1).begin(4, STEP_S), 0.0, 0.0
    seen = set()
    for reach in (4, 4, 4, 0, 0, 0, 0, 0, 3, 4, 4):
        rate = (0.7 + accepted) / (1 + judged)
        best = max(range(5), key=lambda k, a=rate: sum(a**i for i in range(k + 1)) / STEP_S[k])  # type: ignore[misc]
        assert text.next() == best
        taken = min(reach, best)
        text.observe(taken, unread(best))
        accepted, judged = 0.5 * accepted + taken, 0.5 * judged + min(taken + 1, best)
        seen.add(best)
    assert {0, 4} <= seen


@given(st.lists(st.floats(0.01, 1), min_size=1, max_size=6), st.sampled_from(["hf_confidence", "svip"]))
def test_what_ends_a_chain_is_known_while_it_is_drafted(probs: list[float], kind: str) -> None:
    said = Said(np.cumsum(np.log(probs)), np.array([3 * (1 - p) for p in probs], dtype=np.float32))
    text = registry()[kind]().begin(len(probs))
    whole = text.ends(said).tolist()
    assert whole == [bool(text.ends(said.first(n))[-1]) for n in range(1, len(probs) + 1)]


@pytest.mark.parametrize(
    ("policy", "label"),
    [(Constant(), "constant"), (Constant(k=3), "constant-k3"), (HfConfidence(threshold=0.2), "hf_confidence-t0.2"),
     (HfConfidence(adapt=True), "hf_confidence-adapt"), (VllmTable(), "vllm_table"),
     (SglangAdaptive(candidate_steps=[1, 2]), "sglang_adaptive-cs1x2")],
)  # fmt: skip
def test_labels(policy: LengthPolicy, label: str) -> None:
    assert policy.label == label


@pytest.mark.parametrize(
    ("policy", "line"),
    [
        (HfConfidence(threshold=2), "length.threshold=2 is out of range; expected 0 to 1"),
        (HfConfidence(schedule="heuristics"), "length.schedule=heuristics is not known; did you mean 'heuristic'"),
        (HfConfidence(initial=3), "length.initial=3 has no effect with length.schedule=constant"),
        (HfHeuristic(initial=0), "length.initial=0 is out of range; expected 1 or more"),
        (Constant(k=0), "length.k=0 is out of range; expected 1 or more"),
        (SglangAdaptive(candidate_steps=[3, 1]), "length.candidate_steps=.* is out of range; expected whole numbers"),
        (SglangAdaptive(candidate_steps=[0]), "length.candidate_steps=.* one above 0"),
        (SglangAdaptive(update_interval=0), "length.update_interval=0 is out of range"),
        (SglangAdaptive(ema_alpha=1.5), "length.ema_alpha=1.5 is out of range; expected 0 to 1"),
        (VllmTable(table=[[2, 4, 1]]), "expected a first row that begins at a batch of 1"),
        (VllmTable(table=[[1, 4]]), "expected rows of a first and a last batch size and a length"),
        (VllmTable(table=[]), "expected rows of a first"),
        (VllmTable(table=[[1, 4, 2], [3, 5, 1]]), "rows in ascending order that do not overlap"),
        (VllmTable(table=[[1, 4, -1]]), "lengths of 0 or more"),
        (Svip(threshold=-1), "length.threshold=-1 is out of range; expected 0 or more"),
        (Goodput(prior=2), "length.prior=2 is out of range; expected 0 to 1"),
        (Goodput(prior_tokens=0), "length.prior_tokens=0 is out of range; expected above 0"),
    ],
)
def test_what_is_out_of_range(policy: LengthPolicy, line: str) -> None:
    with pytest.raises(ConfigError, match=line):
        policy.check()
