"""Chains of differing lengths: replay is live to the integer, and `transformers`' own rounds, whatever the policy."""

from __future__ import annotations

from dataclasses import replace
from functools import cache
from typing import Any

import numpy as np
import pytest
import torch
from support.drafting import record_all, texts_of
from support.peers import rounds
from support.recorded import NEW, Counting, Recorded, small, untimed
from support.tallied import steps_of, tally_of
from transformers import GenerationConfig
from transformers.utils import is_sklearn_available

from specdraft.acceptance import AcceptanceRule, Greedy, Rejection, TopK
from specdraft.bench.curve import CostCurve
from specdraft.decoding.decode import Decoding, decode
from specdraft.decoding.lengths import Sizing
from specdraft.decoding.verifier import Verifier
from specdraft.drafters.loaded.model import ModelDrafter
from specdraft.drafters.pair import Pair, load_pair
from specdraft.models.language_model import generating
from specdraft.prediction.length import LengthPolicy
from specdraft.prediction.length.costs import fed_levels, step_seconds
from specdraft.prediction.length.goodput import Goodput
from specdraft.prediction.length.hf_confidence import HfConfidence
from specdraft.prediction.length.hf_heuristic import HfHeuristic
from specdraft.prediction.length.oracle import Oracle
from specdraft.prediction.length.sglang_adaptive import SglangAdaptive
from specdraft.prediction.length.svip import Svip
from specdraft.replay.lengths import Chains, replay_sized
from specdraft.results.counted import Counted
from specdraft.results.metrics import tally
from specdraft.sampling.distribution import Sampling
from specdraft.sampling.randomness import RandomSource
from specdraft.trees.ranks import PackedRanks
from specdraft.trees.shapes.best_first import BestFirst
from specdraft.trees.shapes.chain import Chain

BUDGET, LONGEST = 6, NEW
COSTS = CostCurve([1, 2, 33], [0.3, 0.3, 0.5], [1.0, 1.05, 3.2], 1.0, 0.1, 0.1, 1.0, 0.8, 1, "cpu")
DEAR = replace(COSTS, draft_level_s=[2.0, 2.0, 3.0])
QUICK = {"update_interval": 1, "warmup": 1}
POLICIES: dict[str, LengthPolicy] = {
    "heuristic": HfHeuristic(initial=2),
    "confidence": HfConfidence(threshold=0.3),
    "confidence-adapt": HfConfidence(threshold=0.3, adapt=True),
    "confidence-heuristic": HfConfidence(threshold=0.1, schedule="heuristic", initial=2),
    "sglang": SglangAdaptive(candidate_steps=[1, 2, 4, 6], **QUICK),
    "sglang-empty": SglangAdaptive(candidate_steps=[0, 1, 3], initial_steps=1, down_hysteresis=0.5, **QUICK),
    "svip": Svip(threshold=0.65),
    "goodput": Goodput(),
}


@cache
def chains() -> Chains:
    pair = small()
    plan = BestFirst(max_depth=LONGEST, max_children=1).at(LONGEST)
    texts = texts_of(pair.prompts, record_all(pair.target, pair.prompts, pair.ending))
    described = list(pair.drafter.describe_trees(texts, plan))
    entropy = [some.nodes.entropy for some in described if some.nodes is not None]
    return Chains.of(pair.packed, [some.expansion for some in described], entropy)


def of_prompt(whole: Chains, prompt: int, packed: PackedRanks) -> Chains:
    rows, walked = whole.walked.prompt == prompt, whole.walked
    of_starts = ("parent", "depth", "log_prob", "path", "on_path")
    alone = walked._replace(
        prompt=np.zeros(rows.sum(), dtype=np.int64),
        first=np.zeros(len(packed.last), dtype=np.int64),
        **{name: getattr(walked, name)[rows] for name in of_starts},
    )
    return Chains(alone, whole.said._replace(log_prob=whole.said.log_prob[rows], entropy=whole.said.entropy[rows]))


def replayed(policy: LengthPolicy, budget: int = BUDGET, costs: CostCurve = COSTS) -> list[Counted]:
    """Each prompt alone."""
    pair, step_s = small(), step_seconds(costs, budget)
    found = []
    for prompt in range(len(pair.prompts)):
        packed = pair.packed.of(np.array([prompt]))
        given = of_prompt(chains().first(budget), prompt, packed) if policy.watches else Chains.unread(packed, budget)
        found.append(replay_sized(given, policy, packed, step_s, with_steps=True)[0])
    return found


def live(
    pair: Recorded, policy: LengthPolicy, budget: int = BUDGET, rule: AcceptanceRule | None = None, **how: Any
) -> list[Decoding]:
    verifier, drafter = Verifier(pair.target), how.get("drafter") or ModelDrafter(pair.draft)
    given = (Chain().at(budget), rule or Greedy(), how.get("sampling", Sampling()))
    sizing = Sizing(policy, how.get("costs", COSTS))
    source = RandomSource(torch.Generator().manual_seed(0))
    return [decode(verifier, drafter, *given, p, pair.ending, source, sizing=sizing).finish() for p in pair.prompts]


@pytest.mark.parametrize("rule", [Greedy(), TopK(), Rejection()], ids=lambda rule: rule.kind)
@pytest.mark.parametrize("name", POLICIES)
def test_replay_is_live_to_the_integer(name: str, rule: AcceptanceRule) -> None:
    policy, lengths = POLICIES[name], set()
    for counted, one in zip(replayed(policy), live(small(), policy, rule=rule), strict=True):
        assert untimed(tally_of(counted)) == untimed(tally(one.first, one.steps, 0, 0, dynamic=True))
        assert [drafted for _, drafted, *_ in steps_of(counted)] == [step.tree.num_nodes for step in one.steps]
        lengths |= {step.tree.num_nodes for step in one.steps}
    assert len(lengths) > 1, "all chains have one length: nothing is tested"


def test_a_length_of_nothing_is_tried() -> None:
    for policy, costs in ((POLICIES["sglang-empty"], COSTS), (Goodput(), DEAR)):
        sizes = {step.tree.num_nodes for one in live(small(), policy, costs=costs) for step in one.steps}
        assert 0 in sizes
        found = [drafted for counted in replayed(policy, costs=costs) for _, drafted, *_ in steps_of(counted)]
        assert set(found) == sizes


def test_as_many_forwards_as_tokens() -> None:
    """A watched chain costs a forward a token; what is estimated says so."""
    drafter, policy = Counting(small().draft), POLICIES["confidence-adapt"]
    sizes = [step.tree.num_nodes for one in live(small(), policy, drafter=drafter) for step in one.steps]
    assert [len(fed) for fed in drafter.fed] == sizes
    assert fed_levels(np.array(sizes), BUDGET).sum() == sum(sizes)
    assert fed_levels(np.array([0, 2]), 3).tolist() == [[0, 0, 0], [1, 1, 0]]


def test_drawn_chains_end_by_what_was_drawn() -> None:
    pair, lengths, rule = small(), set(), Rejection()
    for policy, ends in (
        (HfConfidence(threshold=0.1), lambda p, _: p < 0.1),
        (Svip(), lambda _, h: (0.15 * h) ** 0.5 > 0.3),
    ):
        steps = live(pair, policy, rule=rule, sampling=Sampling(0.4))
        for step in (step for one in steps for step in one.steps):
            tokens, drawn_from = step.tree.token_list()[1:], step.tree.drawn_from
            assert drawn_from is not None
            own = [float(row[token]) for row, token in zip(drawn_from, tokens, strict=False)]
            entropy = [float(-(row * row.clamp(min=1e-300).log()).sum()) for row in drawn_from[:-1]]
            last = [ends(p, h) for p, h in zip(own, entropy, strict=True)]
            assert not any(last[:-1]) and (last[-1] or len(tokens) == BUDGET)
            lengths.add((policy.kind, len(tokens)))
    assert len(lengths) > 4


def test_recorded_chains_serve_every_budget() -> None:
    """Live with a smaller budget, and replayed from longer chains."""
    for budget in (1, 3):
        for counted, one in zip(replayed(HfConfidence(), budget), live(small(), HfConfidence(), budget), strict=True):
            assert untimed(tally_of(counted)) == untimed(tally(one.first, one.steps, 0, 0, dynamic=True))


def test_the_oracle_sends_what_is_accepted_and_takes_the_longest_chains_steps() -> None:
    for prompt, counted in enumerate(replayed(Oracle())):
        whole = small().live(Chain().at(BUDGET).topology, small().prompts[prompt])
        assert counted.sums["steps"] == whole.steps and counted.sums["accepted_tokens"] == whole.accepted_tokens
        assert (counted.sums["drafted_tokens"] == counted.sums["accepted_tokens"]).all()


SCHEDULES: dict[str, tuple[dict[str, Any], LengthPolicy]] = {
    "constant": ({"num_assistant_tokens": 5}, HfConfidence(threshold=0.0)),
    "heuristic": ({"num_assistant_tokens_schedule": "heuristic"}, HfHeuristic()),
    "transient": ({"num_assistant_tokens_schedule": "heuristic_transient"}, HfHeuristic()),
    "confident": ({"num_assistant_tokens": 20, "assistant_confidence_threshold": 0.4}, HfConfidence()),
    "unsure": ({"num_assistant_tokens": 20, "assistant_confidence_threshold": 0.15}, HfConfidence(threshold=0.15)),
    "both": (
        {"num_assistant_tokens_schedule": "heuristic", "assistant_confidence_threshold": 0.2},
        HfConfidence(threshold=0.2, schedule="heuristic"),
    ),
}


def of_peer(target: Any, draft: Any, prompt: list[int], new: int, eos: list[int], how: dict[str, Any]) -> list[int]:
    """Tokens of each round; what is said of the assistant holds for this text only."""
    usual = {
        "num_assistant_tokens": 5,
        "num_assistant_tokens_schedule": "constant",
        "assistant_confidence_threshold": 0,
    }
    with generating(draft, GenerationConfig(**usual | how)):
        return [len(tokens) for tokens in rounds(target, prompt, new, eos, assistant_model=draft)]


def adapting(policy: LengthPolicy) -> LengthPolicy:
    """As `transformers` is here: with scikit-learn its thresholds adapt."""
    return replace(policy, adapt=is_sklearn_available()) if isinstance(policy, HfConfidence) else policy


@pytest.mark.parametrize("schedule", SCHEDULES)
def test_rounds_are_those_of_transformers(schedule: str) -> None:
    """Our first round starts after the prefill's token, theirs at the prompt's end: they are given that token too."""
    pair, (how, policy) = small(), SCHEDULES[schedule]
    budget = how.get("num_assistant_tokens", LONGEST) if "num_assistant_tokens_schedule" not in how else LONGEST
    stops, differing = sorted(pair.ending.eos_ids), set()
    for counted, prompt, one in zip(
        replayed(adapting(policy), budget),
        pair.prompts,
        record_all(pair.target, pair.prompts, pair.ending),
        strict=True,
    ):
        if len(one.tokens) == 1:
            continue
        given = ([*prompt, int(one.tokens[0])], NEW - 1, stops, how)
        theirs = of_peer(pair.target.model, pair.draft.model, *given)
        assert [accepted + bonus for _, _, accepted, bonus, _ in steps_of(counted)] == theirs
        differing |= set(theirs)
    assert len(differing) > 2


@pytest.fixture(scope="module")
def zoo() -> Pair:
    return load_pair("zoo")


@pytest.mark.parametrize("schedule", ["heuristic", "confident"])
def test_rounds_of_the_bundled_pair(schedule: str, zoo: Pair) -> None:
    how, policy = SCHEDULES[schedule]
    prompts = [zoo.encode(text) for text in ("Once upon a time there was a little", "def add(a, b):\n    return")]
    bundled = Recorded(
        zoo.target, zoo.drafter.model, prompts, replace(small().ending, max_new_tokens=24), small().packed
    )  # type: ignore[arg-type, attr-defined]
    bundled = bundled._replace(ending=replace(bundled.ending, eos_ids=zoo.eos_ids))
    for prompt, one in zip(prompts, live(bundled, adapting(policy), 20), strict=True):
        given = ([*prompt, one.first], 23, sorted(zoo.eos_ids), how)
        assert [len(step.tokens) for step in one.steps] == of_peer(zoo.target.model, bundled.draft.model, *given)
