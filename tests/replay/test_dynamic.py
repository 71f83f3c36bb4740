from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
from support.drafting import expand, prefilled, record_all, texts_of
from support.recorded import Counting, Live, expansions, recorded, small, untimed
from support.tallied import replay_dynamic

from specdraft.decoding.ending import Ending
from specdraft.drafters.base import Expansion
from specdraft.drafters.loaded import expansion as expand_module
from specdraft.drafters.pair import load_pair
from specdraft.models import batch as batch_module
from specdraft.models.branches import Branches
from specdraft.prompts import PromptSpec, load_prompts
from specdraft.replay import best_first
from specdraft.replay.best_first import fed_nodes, nodes_there, take_steps, walk
from specdraft.results.metrics import COUNTS, Tally
from specdraft.trees.shapes.adaptive import Adaptive
from specdraft.trees.shapes.beam_search import BeamSearch
from specdraft.trees.shapes.best_first import BestFirst
from specdraft.trees.shapes.expand_rerank import ExpandRerank

BUDGETS = (1, 2, 5, 12, 24, 40)
SHAPES = (
    BestFirst(),
    BestFirst(max_depth=3),
    BestFirst(max_children=2),
    BestFirst(max_depth=5, candidate_top_k=3, candidate_top_p=0.9),
    BestFirst(min_prob=0.02),
    BestFirst(scores="calibrated", temperature=0.4),
)
RERANKED = (ExpandRerank(), ExpandRerank(top_k=3, steps=5), ExpandRerank(top_k=2, steps=8))
SEARCHED = (BeamSearch(), BeamSearch(width=6, steps=3), BeamSearch(width=2, steps=7))
ADAPTIVE = (Adaptive(), Adaptive(margin=1.0, max_nodes_per_level=3), Adaptive(margin=0.5, max_depth=3))


@pytest.mark.parametrize("shape", [*SHAPES, *RERANKED, *SEARCHED, *ADAPTIVE], ids=lambda shape: shape.label)
def test_replay_is_live_to_the_integer_at_every_budget(shape: BestFirst | ExpandRerank | BeamSearch | Adaptive) -> None:
    pair = small()
    grown = expansions(pair, shape.at(max(BUDGETS)))
    walked = walk(pair.packed, grown)
    for budget in BUDGETS:
        plan = shape.at(budget)
        counted, steps = replay_dynamic(pair.packed, grown, plan)
        live = Live(pair, plan)
        assert list(map(untimed, counted)) == list(map(untimed, live.tallies))
        taken = [
            [[i, s.tree.num_nodes, s.accepted_tokens, s.bonus_tokens, int(s.cut)] for i, s in enumerate(one)]
            for one in live.steps
        ]
        assert steps == taken
        starts = take_steps(walked, pair.packed, nodes_there(walked, plan))
        fed = [[n for n in row if n] for row in fed_nodes(walked, starts, plan).tolist()]
        assert [len(row) for row in fed] == [len(row) for row in live.fed]
        known, true = sum(map(sum, fed)), sum(map(sum, live.fed))  # nodes that were pushed out again are not known
        if isinstance(shape, (Adaptive, BeamSearch)):
            assert fed == live.fed
            continue
        raw = not isinstance(shape, BestFirst) or shape.scores == "raw"
        share = (0.9 if budget <= max(BUDGETS) // 2 else 0.6) if raw else 0.3  # deeper: more of them
        assert true * share <= known <= true


def test_a_node_exactly_at_the_threshold_stays() -> None:
    """A threshold that is one node's own probability keeps it, and with it the order's beginning."""
    pair = small()
    walked = walk(pair.packed, expansions(pair, BestFirst().at(24)))
    start = int(np.flatnonzero((walked.depth > 0).sum(1) > 9)[0])
    for place in (1, 4, 9):
        plan = replace(BestFirst().at(24), least=float(walked.log_prob[start, place - 1]))
        assert nodes_there(walked, plan)[start].sum() == place
        steps = take_steps(walked, pair.packed, nodes_there(walked, plan))
        if place == 1 and start in steps.start:
            assert fed_nodes(walked, steps, plan)[steps.start == start, 1].tolist() == [1]


def test_some_of_these_trees_accept_several_tokens_off_the_first_rank() -> None:
    counted = Live(small(), BestFirst().at(24)).tallies
    assert max(length for one in counted for length in one.lengths) >= 3
    assert any(any(path) and accepted for one in counted for path, (_, accepted) in one.nodes.items())


def same(grown: Sequence[Expansion], other: Sequence[Expansion]) -> bool:
    pairs = list(zip(grown, other, strict=True))
    assert all(np.allclose(one.log_prob, two.log_prob, atol=1e-6) for one, two in pairs)
    return all(np.array_equal(a, b) for one, two in pairs for a, b in zip(one[:3], two[:3], strict=True))


@pytest.mark.parametrize("bounds", [{}, {"starts": 48}, {"logits": 6 * 64}, {"rows": 16 * 20 * 2}], ids=str)
def test_texts_side_by_side_have_the_trees_that_each_has_alone(
    bounds: dict[str, int], monkeypatch: pytest.MonkeyPatch
) -> None:
    """All at once, a few starts, a few logits, two texts at a time."""
    pair, plan = small(), BestFirst().at(16)
    alone = expansions(pair, plan)
    monkeypatch.setattr(expand_module, "NODES_OF_A_TEXT", bounds.get("starts", 1024))
    monkeypatch.setitem(expand_module.NODES, "cpu", bounds.get("rows", 10**6))
    monkeypatch.setitem(batch_module.LOGITS, "cpu", bounds.get("logits", 10**6))
    monkeypatch.setattr(batch_module, "LEAST_TOKENS", 1)
    monkeypatch.setattr(batch_module, "PREFILL_TOKENS", 8)
    texts = texts_of(pair.prompts, record_all(pair.target, pair.prompts, pair.ending))
    assert len({len(text.prompt_ids) for text in texts}) > 2
    assert len({len(text.tokens) for text in texts}) > 1
    assert same(list(pair.drafter.expand(texts, plan)), alone)


def test_each_context_is_fed_once(monkeypatch: pytest.MonkeyPatch) -> None:
    pair, plan = small(), BestFirst().at(24)
    trajectories = record_all(pair.target, pair.prompts, pair.ending)
    prompt, tokens = max(
        zip(pair.prompts, (one.tokens for one in trajectories), strict=True), key=lambda both: len(both[1])
    )
    alone = Counting(pair.drafter.model)
    for start in range(len(tokens) - 1):
        alone.begin(prefilled([*prompt, *tokens[:start].tolist()]))
        alone.draft(int(tokens[start]), plan)
    fed = len(tokens) - 1
    feed = Branches.feed

    def counting(branches: Branches, tokens: np.ndarray, *rest: Any) -> Any:
        nonlocal fed
        fed += len(tokens)
        return feed(branches, tokens, *rest)

    monkeypatch.setattr(Branches, "feed", counting)
    expand(pair.drafter.model, prompt, tokens, plan)
    assert len(tokens) < fed < 0.9 * sum(map(sum, alone.fed))


@pytest.mark.parametrize("fault", ["rank", "position", "order", "bonus"])
def test_a_fault_is_seen(fault: str, monkeypatch: pytest.MonkeyPatch) -> None:
    pair, plan = small(), BestFirst().at(12)
    grown, packed = expansions(pair, BestFirst().at(24)), pair.packed
    if fault == "rank":
        grown = [one._replace(rank=np.where(one.rank >= 0, one.rank + 1, -1)) for one in grown]
    if fault == "position":
        grown = [
            one._replace(**{name: np.roll(value, 1, axis=0) for name, value in one._asdict().items()}) for one in grown
        ]
    if fault == "order":
        packed = packed._replace(
            ranks=np.concatenate([packed.ranks[:, :1], packed.ranks[:, 2:], packed.ranks[:, :1]], 1)
        )
    walked = walk(packed, grown)
    if fault == "bonus":
        walked = walked._replace(
            on_path=np.concatenate(
                [walked.on_path[:, :1], np.ones_like(walked.on_path[:, :1]), walked.on_path[:, 1:-1]], 1
            )
        )
    try:
        counted = best_first.replay_dynamic(walked, packed, plan)[0]
    except (IndexError, ValueError):
        return
    live = Live(pair, plan).tallies
    assert any(counted.sums[name].tolist() != [getattr(t, name) for t in live] for name in COUNTS)


def test_no_start() -> None:
    pair = small()
    empty = pair.packed._replace(
        last=np.zeros(1, dtype=np.int64), ranks=pair.packed.ranks[:1], looped=np.zeros(1, dtype=np.int64)
    )
    nothing = expand(pair.drafter.model, pair.prompts[0], np.array([5]), BestFirst().at(4))
    assert [field.shape for field in nothing] == [(0, 4)] * 4
    (counted,), steps = replay_dynamic(empty, [nothing], BestFirst().at(4))
    assert untimed(counted) == untimed(Tally(new_tokens=1, dynamic=True))
    assert steps == [[]]


@pytest.mark.slow
@pytest.mark.parametrize("name", ["zoo", "zoo-distilled"])
def test_the_bundled_pairs(name: str) -> None:
    pair = load_pair(name)
    prompts = [pair.encode(prompt.text) for prompt in load_prompts(PromptSpec(limit=20))]
    one = recorded(pair.target, pair.drafter.model, prompts, Ending(32, pair.eos_ids))
    grown = expansions(one, BestFirst().at(48))
    for budget in (1, 2, 4, 8, 16, 48):
        live = Live(one, BestFirst().at(budget)).tallies
        assert list(map(untimed, replay_dynamic(one.packed, grown, BestFirst().at(budget))[0])) == list(
            map(untimed, live)
        )
