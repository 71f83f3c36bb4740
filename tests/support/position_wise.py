"""Drafters by the distance from the root, on a few texts: what is decoded with them is what is replayed."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, NamedTuple

from specdraft.acceptance import Greedy
from specdraft.decoding.decode import decode
from specdraft.decoding.ending import Ending
from specdraft.decoding.verifier import Verifier
from specdraft.drafters.base import Annotation, RecordedText
from specdraft.drafters.pair import Pair
from specdraft.replay.static import pack
from specdraft.results.metrics import Tally, tally
from specdraft.sampling.distribution import Sampling
from specdraft.traces.library import recorded_texts
from specdraft.trees.ranks import PackedRanks
from specdraft.trees.shapes import Shape, registry
from specdraft.trees.shapes.best_first import BestFirst
from support.drafting import record_all
from support.recorded import untimed
from support.tallied import replay, replay_dynamic


class Heads(NamedTuple):
    """A pair whose drafter has heads, and what was recorded with it."""

    pair: Pair
    prompts: list[list[int]]
    ending: Ending
    texts: list[RecordedText]
    annotations: list[Annotation]

    def annotated(self) -> Heads:
        """Anew."""
        return self._replace(annotations=self.pair.drafter.annotate(self.texts))

    @property
    def packed(self) -> PackedRanks:
        return pack([a.ranks for a in self.annotations], [text.tokens for text in self.texts])

    def live(self, plan: Any, prompt: list[int]) -> Any:
        made = decode(Verifier.of(self.pair), self.pair.drafter, plan, Greedy(), Sampling(), prompt, self.ending)
        made.finish()
        return untimed(tally(made.first, made.steps, 0, 0, plan.dynamic))


def heads_on(pair: Pair, texts: Sequence[str], new_tokens: int) -> Heads:
    prompts, ending = [pair.encode(text) for text in texts], Ending(new_tokens, pair.eos_ids)
    trajectories = record_all(pair.target, prompts, ending)
    read = recorded_texts(pair, list(zip(prompts, trajectories, strict=True)))
    return Heads(pair, prompts, ending, read, pair.drafter.annotate(read))


def replayed(heads: Heads, tree: str, budget: int) -> list[Tally]:
    """Of a static tree on each prompt, as each was decoded live."""
    made = registry()
    shape = made["published"](name="medusa/mc_sim_7b_63") if tree == "medusa" else made[tree]()  # type: ignore[call-arg]
    topology = shape.fit(budget, heads.packed) if shape.fitted else shape.at(budget).topology
    plan = made["paths"](paths=[list(path) for path in topology.paths[1:]]).at(budget)  # type: ignore[call-arg,union-attr]
    tallies = replay(topology, heads.packed)  # type: ignore[arg-type]
    for prompt, counted in zip(heads.prompts, tallies, strict=True):
        assert untimed(counted) == heads.live(plan, prompt)
    return tallies


def check_static(heads: Heads, tree: str, budget: int) -> int:
    """Accepted tokens in all."""
    return sum(int(counted.accepted_tokens) for counted in replayed(heads, tree, budget))


def check_best_first(heads: Heads, budget: int, shape: Shape | None = None) -> None:
    """Trees of a budget are parts of the largest ones, which are recorded."""
    shape = shape or BestFirst(max_depth=4, max_children=5)
    plan = shape.at(budget)
    tallies, _ = replay_dynamic(heads.packed, list(heads.pair.drafter.expand(heads.texts, shape.at(32))), plan)
    for prompt, counted in zip(heads.prompts, tallies, strict=True):
        assert untimed(counted) == heads.live(plan, prompt)
