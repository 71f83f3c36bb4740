"""Drafters that read tokens only: replay is live to the integer, with every kind of tree."""

from __future__ import annotations

from itertools import count
from pathlib import Path
from typing import NamedTuple

import numpy as np
import pytest
from support.recorded import untimed
from support.tallied import steps_of

from specdraft.acceptance import Greedy, TopK
from specdraft.bench.curve import NOT_MEASURED, CostCurve
from specdraft.decoding.decode import decode
from specdraft.decoding.ending import Ending
from specdraft.decoding.verifier import Verifier
from specdraft.drafters import DrafterSpec, registry
from specdraft.drafters.base import Prefilled, RecordedText
from specdraft.drafters.ngram import Ngram
from specdraft.drafters.pair import Pair, load_pair
from specdraft.prompts import Prompt, PromptSpec, load_prompts
from specdraft.replay.redraft import Redrafting, redraft
from specdraft.replay.replayer import Replayer
from specdraft.replay.static import pack_traces
from specdraft.results.counted import Counted
from specdraft.results.metrics import COUNTS, Tally, tally
from specdraft.sampling.distribution import Sampling
from specdraft.traces.library import PairTraces, pair_traces
from specdraft.traces.store import TraceStore
from specdraft.trees.draft_tree import DraftTree
from specdraft.trees.shapes import Plan, StaticPlan
from specdraft.trees.shapes.best_first import BestFirst
from specdraft.trees.shapes.chain import Chain
from specdraft.trees.shapes.kary import Kary
from specdraft.trees.shapes.measured import Measured
from specdraft.trees.shapes.published import Published
from specdraft.trees.topology import Topology

TEXTS = ("The cat sat on the mat. The cat sat on the", "one two three one two three one two", "x")
GAPS = StaticPlan(Topology.from_paths([(1,), (0,), (0, 1), (1, 0)]))
SPECS = [
    *(Ngram(variant=variant) for variant in ("hf", "vllm", "trie")),
    Ngram(variant="original", num_output_tokens=3),
    *(spec for spec in (made() for made in registry().values()) if spec.traits.from_tokens and spec.kind != "ngram"),
]


class Texts(NamedTuple):
    """Recorded texts of a pair, and its drafter along them."""

    pair: Pair
    prompts: dict[str, list[int]]
    ending: Ending
    traces: PairTraces

    @classmethod
    def of(cls, spec: DrafterSpec, like: Pair, texts: dict[str, str], new: int, folder: Path) -> Texts:
        pair = load_pair(like.files.spec, spec, target_of=like)
        prompts, ending = {name: pair.encode(text) for name, text in texts.items()}, Ending(new, pair.eos_ids)
        return cls(pair, prompts, ending, pair_traces(pair, prompts, Sampling(), ending, TraceStore(folder)))

    def replayed(self, plan: Plan, names: list[str]) -> Counted:
        """The counts of some prompts."""
        redrafting = Redrafting(self.pair.drafter, self.prompts, self.traces)
        return redrafting.along(names, plan).counted(plan, pack_traces(self.traces, names), with_steps=True)

    def live(self, plan: Plan, name: str) -> tuple[Tally, list[list[int]]]:
        setting = (self.pair.drafter, plan, Greedy(), Sampling(), self.prompts[name], self.ending)
        decoding = decode(Verifier.of(self.pair), *setting).finish()
        listed = [
            [number, step.tree.num_nodes, step.accepted_tokens, step.bonus_tokens, int(step.cut)]
            for number, step in zip(count(), decoding.steps, strict=False)
        ]
        return untimed(tally(decoding.first, decoding.steps, 0, 0, plan.dynamic)), listed

    def compare(self, plan: Plan) -> int:
        """Every count and every step of each prompt; returns the accepted tokens."""
        together = self.replayed(plan, [*self.prompts])
        for number, name in enumerate(self.prompts):
            counted, (live, steps) = self.replayed(plan, [name]), self.live(plan, name)
            assert [together.sums[key][number] for key in COUNTS] == [getattr(live, key) for key in COUNTS]
            assert steps_of(counted) == steps
            nodes, depths = counted.nodes, zip(counted.reached.tolist(), counted.accepted.tolist(), strict=True)
            said = zip(nodes.paths, nodes.reached.tolist(), nodes.accepted.tolist(), strict=True)
            assert {path: [reached, hit] for path, reached, hit in said} == live.nodes
            assert {depth: [*both] for depth, both in enumerate(depths, start=1) if both[0]} == live.positions
            assert {n: steps for n, steps in enumerate(counted.lengths.tolist()) if steps} == live.lengths
        return int(together.sums["accepted_tokens"].sum())

    def tokens(self, name: str) -> np.ndarray:
        """A text."""
        return self.traces.trajectories[name].tokens

    def plans(self, measured: int) -> list[Plan]:
        """Chain, static, published and fitted trees, and the drafter's own."""
        fitted = StaticPlan(Measured().fit(measured, pack_traces(self.traces, [*self.prompts])))
        own: list[Plan] = [BestFirst().at(16), BestFirst(max_depth=3, max_children=2, min_prob=0.3).at(6)]
        medusa = Published(name="medusa/mc_sim_7b_63").at(63)
        return [Chain().at(4), Kary().at(8), medusa, fitted, GAPS, *own * self.pair.traits.counts]


@pytest.mark.parametrize(
    "spec", [SPECS[0], *(spec for spec in SPECS if spec.traits.counts)], ids=lambda spec: spec.label
)
def test_replay_is_live_in_every_count(spec: DrafterSpec, tiny_pair: Pair, tmp_path: Path) -> None:
    texts = Texts.of(spec, tiny_pair, {"a": TEXTS[0], "b": TEXTS[1]}, 30, tmp_path)
    accepted = [texts.compare(plan) for plan in texts.plans(16)]
    assert min(accepted) > 0


@pytest.mark.slow
@pytest.mark.parametrize("spec", SPECS, ids=lambda spec: spec.label)
def test_replay_is_live_on_bundled_prompts(spec: DrafterSpec, tmp_path: Path) -> None:
    prompts = {prompt.prompt_id: prompt.text for prompt in load_prompts(PromptSpec())[::4]}
    assert len(prompts) == 20
    texts = Texts.of(spec, load_pair("zoo"), prompts, 32, tmp_path)
    assert all(texts.compare(plan) > 100 for plan in texts.plans(16))


def test_an_estimate_has_its_look_ups_and_what_was_really_drafted(tiny_pair: Pair, tmp_path: Path) -> None:
    """One look-up a step for a chain; for a tree one at each drafted node that may have children."""
    texts = Texts.of(Ngram(), tiny_pair, dict(zip("abc", TEXTS, strict=True)), 20, tmp_path)
    sizes, verify = [1, 2, 4, 8], [5.0, 6.0, 8.0, 12.0]
    curve = CostCurve(sizes, [1.0, 2.0, 4.0, 8.0], verify, 5.0, 0.5, 0.0, 100.0, 70.0, 1, "made up")
    redrafting = Redrafting(texts.pair.drafter, texts.prompts, texts.traces)
    prompts = [Prompt(name, "all", "") for name in texts.prompts]
    replayer = Replayer(texts.traces, prompts, curve, seed=0, redrafting=redrafting)
    for plan, parents in ((Chain().at(4), set()), (GAPS, {(0,), (1,)})):
        sums = replayer.run_plan(plan, Greedy()).sums
        for number, name in enumerate(texts.prompts):
            steps = [*redraft(texts.pair.drafter, RecordedText(texts.prompts[name], texts.tokens(name)), plan)]
            trees = [step.tree for step in steps]
            drafting = sum(1 + len(parents & {*tree.topology.paths}) for tree in trees)
            verifying = sum(4.0 + 1 + tree.num_nodes for tree in trees)
            assert sums["est_s"][number] == pytest.approx(100 + drafting + verifying + 0.5 * len(steps))
            assert sums["est_plain_s"][number] == 70 + 5 * (sums["new_tokens"][number] - 1)


def test_a_path_is_followed_by_tokens() -> None:
    tree = DraftTree.from_paths([(0,), (1,), (1, 0), (1, 2)], 9, [4, 5, 6, 7])
    paths = [tree.path_along(following) for following in ([5, 7, 7], [5, 6], [4, 6], [8], [])]
    assert paths == [[2, 4], [2, 3], [1], [], []]


def test_a_sampled_text_is_replayed_start_by_start(tiny_pair: Pair, tmp_path: Path) -> None:
    """Of children chosen by rank the one that was drawn is accepted, at any temperature."""
    pair, plan = load_pair(tiny_pair.files.spec, Ngram(), target_of=tiny_pair), Kary().at(8)
    prompts, ending = {"a": pair.encode(TEXTS[0])}, Ending(20, pair.eos_ids)
    traces = pair_traces(pair, prompts, Sampling(temperature=0.2), ending, TraceStore(tmp_path), draw="0")
    redrafting = Redrafting(pair.drafter, prompts, traces)
    replayer = Replayer(traces, [Prompt("a", "all", "")], NOT_MEASURED, seed=0, redrafting=redrafting)
    sums = replayer.run_plan(plan, TopK()).sums
    text = traces.trajectories["a"].tokens.tolist()
    at, steps, accepted = 0, 0, 0
    while at < len(text) - 1:
        pair.drafter.begin(Prefilled([*prompts["a"], *text[:at]]))
        path = pair.drafter.draft(text[at], plan).path_along(text[at + 1 :])
        at, steps, accepted = at + len(path) + 1, steps + 1, accepted + len(path)
    assert (sums["steps"][0], sums["accepted_tokens"][0], sums["new_tokens"][0]) == (steps, accepted, len(text))
    assert accepted
