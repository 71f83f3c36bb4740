"""Live decoding with real random numbers: against the target's own law on the bundled pair, and against replay."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import replace
from functools import cache
from typing import Any, NamedTuple

import numpy as np
import pytest
import torch
from scipy import stats
from support.drafting import annotate, record_all, texts_of
from support.tabled import Prefix, TableModel
from support.tallied import replay, replay_sampled

from specdraft.acceptance import AcceptanceRule, Membership, Rejection, registry
from specdraft.acceptance.base import Accepted
from specdraft.decoding import decode as decode_module
from specdraft.decoding.decode import decode, decode_plainly
from specdraft.decoding.ending import Ending
from specdraft.decoding.verifier import Verified, Verifier
from specdraft.drafters.loaded.model import ModelDrafter
from specdraft.drafters.loaded.tree_in_work import TreeInWork
from specdraft.drafters.pair import Pair, load_pair
from specdraft.losslessness.enumeration import outcomes
from specdraft.models.cached_model import CachedModel
from specdraft.replay.expected import pack_records, rule_weights
from specdraft.replay.pruned import union_of
from specdraft.replay.static import pack
from specdraft.results.metrics import Tally, tally
from specdraft.sampling.distribution import Sampling, standardise
from specdraft.sampling.randomness import RandomSource, Source, seeded
from specdraft.traces.rule_records import RuleRecords, parts_of, record_rules
from specdraft.trees.draft_tree import DraftTree
from specdraft.trees.ranks import PackedRanks
from specdraft.trees.shapes import StaticPlan
from specdraft.trees.shapes.branching import Branching
from specdraft.trees.shapes.chain import Chain
from specdraft.trees.shapes.kary import Kary
from specdraft.trees.shapes.wide import Wide
from specdraft.trees.topology import Topology

pytestmark = pytest.mark.slow
RECORDED = [rule() for rule in registry().values() if rule.replay == "record"]
LOSSLESS = {kind: rule() for kind, rule in registry().items() if rule.lossless and not rule.greedy_only}

# The law of the text.

SAMPLING = Sampling(1.0, top_k=6, top_p=0.9)
TEXTS, FAULTY_TEXTS, MANY_TEXTS = 400, 800, 1200
CAUGHT = 1e-6
Law = dict[Prefix, float]


class Zoo(NamedTuple):
    pair: Pair
    prompt: list[int]
    target: TableModel
    draft: TableModel

    def law(self, new: int) -> Law:
        """The target's own, exactly."""
        found: Counter[Prefix] = Counter()
        ending = Ending(new, self.pair.eos_ids)
        for text, chance in outcomes(
            lambda source: decode_plainly(Verifier(self.target), SAMPLING, self.prompt, ending, source)
        ):
            found[tuple(text)] += chance
        return dict(found)

    def decode(
        self, rule: AcceptanceRule, plan: StaticPlan, new: int, seed: int, target: CachedModel, draft: CachedModel
    ) -> Prefix:
        source, ending = RandomSource(seeded("text", rule.kind, seed)), Ending(new, self.pair.eos_ids)
        setting = (plan, rule, SAMPLING, self.prompt, ending, source)
        return tuple(decode(Verifier(target), ModelDrafter(draft), *setting).finish().tokens)

    def tabled(self, rule: AcceptanceRule, plan: StaticPlan, new: int, count: int = FAULTY_TEXTS) -> float:
        """P-value of many texts of `new` tokens: the same logits, looked up."""
        texts = (self.decode(rule, plan, new, seed, self.target, self.draft) for seed in range(count))
        return p_value(Counter(texts), self.law(new))


def p_value(texts: Counter[Prefix], law: Law) -> float:
    """Pearson's chi-square; texts that are expected less than 5 times are one bin."""
    if set(texts) - set(law):
        return 0.0  # what the target never says
    total = sum(texts.values())
    common = [text for text, chance in law.items() if chance * total >= 5]
    seen, wanted = ([of.get(text, 0) for text in common] for of in (texts, law))
    rest = total - sum(seen), 1 - sum(wanted)
    if rest[1] * total >= 1:
        seen, wanted = [*seen, rest[0]], [*wanted, rest[1]]
    expected = np.array(wanted) / sum(wanted) * sum(seen)
    return float(stats.chisquare(seen, expected).pvalue)


@pytest.fixture(scope="module")
def zoo() -> Zoo:
    pair = load_pair("zoo")

    def after(model: CachedModel) -> TableModel:
        @cache
        def logits(text: Prefix) -> torch.Tensor:
            with torch.inference_mode():
                return (
                    model.model(input_ids=torch.tensor([text]), use_cache=False).logits[0, -1, : model.vocab].double()
                )

        return TableModel(logits, model.vocab)

    return Zoo(pair, pair.encode("The"), after(pair.target), after(pair.drafter.model))


def plan_for(rule: AcceptanceRule) -> StaticPlan:
    return Chain().at(2) if rule.chain_only else Branching(factors=[3, 1]).at(6)


@pytest.mark.parametrize("rule", LOSSLESS.values(), ids=LOSSLESS)
def test_the_text_follows_the_target(rule: AcceptanceRule, zoo: Zoo) -> None:
    """The models' own caches; three tokens: the prefill's and those of one step or two."""
    texts = Counter(
        zoo.decode(rule, plan_for(rule), 3, seed, zoo.pair.target, zoo.pair.drafter.model) for seed in range(TEXTS)
    )
    assert len(texts) > 20
    assert p_value(texts, zoo.law(3)) > 0.01 / len(LOSSLESS)


def test_a_large_sample_follows_the_target(zoo: Zoo) -> None:
    """As many texts as the faults below are given."""
    assert zoo.tabled(LOSSLESS["recursive"], Wide().at(3), 2, MANY_TEXTS) > 1e-3
    assert zoo.tabled(LOSSLESS["rejection"], Chain().at(2), 3) > 1e-3


def faulty_trees(patch: pytest.MonkeyPatch, change: Callable[[DraftTree], DraftTree]) -> None:
    finish = TreeInWork.finish
    patch.setattr(TreeInWork, "finish", lambda self, topology: change(finish(self, topology)))


@pytest.mark.parametrize("kind", ["rejection", "recursive"])
def test_fault_a_stale_draft_distribution(kind: str, zoo: Zoo, monkeypatch: pytest.MonkeyPatch) -> None:
    before: list[Any] = []

    def stale(tree: DraftTree) -> DraftTree:
        before.append(tree.drawn_from)
        return replace(tree, drawn_from=before[-2:][0])

    faulty_trees(monkeypatch, stale)
    assert zoo.tabled(LOSSLESS[kind], plan_for(LOSSLESS[kind]), 3) < CAUGHT


@pytest.mark.parametrize("kind", ["rejection", "topk"])
def test_fault_top_p_left_off_the_target(kind: str, zoo: Zoo, monkeypatch: pytest.MonkeyPatch) -> None:
    def left_off(logits: torch.Tensor, sampling: Sampling) -> torch.Tensor:
        return standardise(logits, sampling if len(logits) == 1 else replace(sampling, top_p=1.0))

    monkeypatch.setattr(decode_module, "standardise", left_off)
    assert zoo.tabled(LOSSLESS[kind], plan_for(LOSSLESS[kind]), 3) < CAUGHT


@pytest.mark.parametrize("kind", ["recursive", "no_replacement"])
def test_fault_children_reordered_after_they_were_drawn(kind: str, zoo: Zoo, monkeypatch: pytest.MonkeyPatch) -> None:
    def best_first(tree: DraftTree) -> DraftTree:
        assert isinstance(tree.tokens, torch.Tensor)
        assert tree.drawn_from is not None
        order = tree.drawn_from[0, tree.tokens[1:]].argsort(descending=True)
        return replace(tree, tokens=torch.cat([tree.tokens[:1], tree.tokens[1:][order]]))

    faulty_trees(monkeypatch, best_first)
    assert zoo.tabled(LOSSLESS[kind], Wide().at(3), 2, MANY_TEXTS) < CAUGHT


@pytest.mark.parametrize("kind", ["rejection", "membership"])
def test_fault_the_bonus_token_drawn_from_unprocessed_logits(
    kind: str, zoo: Zoo, monkeypatch: pytest.MonkeyPatch
) -> None:
    class Unprocessed(type(LOSSLESS[kind])):  # type: ignore[misc]
        def accept(self, tree: DraftTree, target_probs: torch.Tensor, draft_probs: Any, source: Source) -> Accepted:
            found = super().accept(tree, target_probs, draft_probs, source)
            last = found.nodes[-1] if found.nodes else 0
            return (
                found
                if tree.topology.children[last]
                else found._replace(bonus=int(source.choose(seen[-1][last : last + 1].softmax(-1))))
            )

    seen: list[torch.Tensor] = []
    verify = Verifier.verify
    monkeypatch.setattr(
        Verifier, "verify", lambda self, tree: Verified(seen.append(verify(self, tree).logits) or seen[-1])
    )
    assert zoo.tabled(Unprocessed(), Chain().at(1), 3) < CAUGHT


# Live against replay: independent texts.

OPEN, NEW, RUNS = Sampling(1.0), 12, 80
TREES = {
    "chains": {"1": Chain().at(1), "2": Chain().at(2), "4": Chain().at(4)},
    "trees": {"chain": Chain().at(3), "kary": Kary().at(6), "wide": Wide().at(3)},
}
REPLAYABLE = {kind: rule for kind, rule in LOSSLESS.items() if rule.replay != "none"}
FEWEST = 40  # texts in which a depth was reached


class Counts(NamedTuple):
    """One text's: terms of the ratios that are compared."""

    above: dict[str, float]
    below: dict[str, float]

    @classmethod
    def of(cls, one: Tally) -> Counts:
        above = {"acceptance_length": one.accepted_tokens, "block_efficiency": one.accepted_tokens + one.bonus_tokens}
        below = dict.fromkeys(above, one.steps)
        for depth, (reached, accepted) in one.positions.items():
            above[f"depth {depth}"], below[f"depth {depth}"] = accepted, reached
        return cls(above, below)


def ratio(texts: Sequence[Counts], name: str) -> tuple[float, float]:
    """A ratio of sums over texts and its variance (delta method)."""
    above, below = (np.array([one.get(name, 0.0) for one in side]) for side in zip(*texts, strict=True))
    estimate, count = above.sum() / below.sum(), len(texts)
    return float(estimate), float(count / (count - 1) * ((above - estimate * below) ** 2).sum() / below.sum() ** 2)


def z_scores(live: Sequence[Tally], replayed: Sequence[Tally]) -> dict[str, float]:
    one, other = [Counts.of(t) for t in live], [Counts.of(t) for t in replayed]
    found = {}
    for name in sorted({name for text in one for name in text.above}):
        if sum(text.below.get(name, 0) for text in one) >= FEWEST:
            (a, spread_a), (b, spread_b) = ratio(one, name), ratio(other, name)
            found[name] = (a - b) / np.sqrt(spread_a + spread_b)
    return found


class Recorded(NamedTuple):
    series: int
    pair: Pair
    prompts: list[list[int]]
    packed: PackedRanks
    records: RuleRecords
    tree: Topology

    def replay(self, rule: AcceptanceRule, plan: StaticPlan) -> list[Tally]:
        if rule.replay == "rank":
            return replay(plan.topology, self.packed)
        return replay_sampled(plan.topology, rule_weights(plan.topology, rule, self.records, self.tree), self.packed)

    def live(self, rule: AcceptanceRule, plan: StaticPlan) -> list[Tally]:
        found = []
        for number, prompt in enumerate(self.prompts):
            source = RandomSource(seeded("live", self.series, rule.kind, plan.topology.paths, number))
            made = decode(
                Verifier(self.pair.target),
                ModelDrafter(self.pair.drafter.model),
                plan,
                rule,
                OPEN,
                prompt,
                Ending(NEW),
                source,
            )
            made.finish()
            found.append(tally(made.first, made.steps, 0, 0))
        return found


Recording = Callable[[int], Recorded]


@pytest.fixture(scope="module")
def recording(tiny_pair: Pair) -> Recording:
    """Texts and records of a series; those of different series are independent."""
    own = [tiny_pair.encode(text) for text in ("Once", "x", "def f(x)", "It was late")]
    prompts = [own[i % len(own)] for i in range(RUNS)]
    tree = union_of([plan.topology for plans in TREES.values() for plan in plans.values()])
    parts = [part for rule in RECORDED for part in parts_of(rule)]

    @cache
    def record(series: int) -> Recorded:
        seeds = [seeded("text", series, i) for i in range(RUNS)]
        texts = record_all(tiny_pair.target, prompts, Ending(NEW), OPEN, seeds)
        assert len({tuple(text.tokens) for text in texts}) == RUNS
        annotations = annotate(tiny_pair.drafter.model, prompts, texts)
        histories = [seeded("history", series, i) for i in range(RUNS)]
        given = (texts_of(prompts, texts), OPEN, parts, 4, histories, tree)
        records = record_rules(tiny_pair.target, tiny_pair.drafter, *given)
        packed = pack([a.ranks for a in annotations], [t.tokens for t in texts])
        return Recorded(series, tiny_pair, prompts, packed, pack_records(records, packed.ranks.shape[1]), tree)

    return record


def limit(tests: int) -> float:
    """What |z| < 3 is for one test, for the largest of many."""
    return float(stats.norm.isf(stats.norm.sf(3) / tests))


def scores(rule: AcceptanceRule, recorded: Recorded) -> dict[tuple[str, str], float]:
    return {
        (name, what): z
        for name, plan in TREES["chains" if rule.chain_only else "trees"].items()
        for what, z in z_scores(recorded.live(rule, plan), recorded.replay(rule, plan)).items()
    }


@pytest.mark.parametrize("rule", REPLAYABLE.values(), ids=REPLAYABLE)
def test_replay_agrees_with_live_decoding(rule: AcceptanceRule, recording: Recording) -> None:
    """What lies far apart in one series of texts is asked again of another: chance does not strike twice."""
    first = scores(rule, recording(0))
    assert len(first) >= 3 * 3
    doubted = [of for of, z in first.items() if abs(z) > limit(len(REPLAYABLE) * len(first))]
    again = scores(rule, recording(1)) if doubted else {}
    assert not [of for of in doubted if abs(again[of]) > 3], (first, again)


def test_a_wrong_replay_is_noticed(recording: Recording) -> None:
    """Another rule's record, the record of the token before; in every series."""
    plan, rule = Chain().at(2), Rejection()
    for recorded in map(recording, range(2)):
        live = recorded.live(rule, plan)
        shifted = recorded._replace(records={name: np.roll(values, 1, 1) for name, values in recorded.records.items()})
        for wrong in (recorded.replay(Membership(), plan), shifted.replay(rule, plan)):
            assert max(map(abs, z_scores(live, wrong).values())) > 5
