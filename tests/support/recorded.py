"""Recorded texts of tiny models, and live runs beside them."""

from __future__ import annotations

from dataclasses import replace
from functools import cache
from typing import Any, NamedTuple

import numpy as np
import torch

from specdraft.acceptance import Greedy
from specdraft.decoding.decode import decode
from specdraft.decoding.ending import Ending
from specdraft.decoding.verifier import Verifier
from specdraft.drafters.base import Expansion
from specdraft.drafters.loaded.model import ModelDrafter
from specdraft.models.cached_model import CachedModel
from specdraft.replay.static import pack
from specdraft.results.metrics import Tally, tally
from specdraft.sampling.distribution import Sampling
from specdraft.trees.draft_tree import DraftTree
from specdraft.trees.ranks import PackedRanks
from specdraft.trees.shapes import StaticPlan
from specdraft.trees.shapes.best_first import BestFirstPlan
from specdraft.trees.step import Step
from specdraft.trees.topology import Topology
from support.drafting import annotate, expand, record_all
from support.tallied import replay
from support.tiny_models import tiny_llama

VOCAB, NEW = 64, 20


def untimed(counted: Tally) -> Tally:
    return replace(
        counted,
        wall_s=0,
        prefill_s=0,
        draft_s=0,
        predict_s=0,
        verify_s=0,
        latency_s=0,
        plain_s=0,
        est_s=0,
        est_plain_s=0,
        est_s_spread=0,
        est_speedup_spread=0,
    )


class Recorded(NamedTuple):
    target: CachedModel
    draft: CachedModel
    prompts: list[list[int]]
    ending: Ending
    packed: PackedRanks

    @property
    def drafter(self) -> ModelDrafter:
        return ModelDrafter(self.draft)

    def live(self, topology: Topology, prompt: list[int]) -> Tally:
        made = decode(
            Verifier(self.target),
            ModelDrafter(self.draft),
            StaticPlan(topology),
            Greedy(),
            Sampling(),
            prompt,
            self.ending,
        )
        made.finish()
        return tally(made.first, made.steps, 0, 0)

    def check(self, topology: Topology) -> list[Tally]:
        """Replay is live, in every count of every prompt."""
        replayed = replay(topology, self.packed)
        for prompt, counted in zip(self.prompts, replayed, strict=True):
            assert untimed(counted) == untimed(self.live(topology, prompt))
        return replayed


def recorded(target: CachedModel, draft: CachedModel, prompts: list[list[int]], ending: Ending) -> Recorded:
    trajectories = record_all(target, prompts, ending)
    annotations = annotate(draft, prompts, trajectories)
    return Recorded(
        target, draft, prompts, ending, pack([a.ranks for a in annotations], [t.tokens for t in trajectories])
    )


@cache
def small(draft_layers: int = 2, count: int = 6) -> Recorded:
    """A pair in float64 on ragged prompts: some texts end on their first token, some early, some at the limit."""
    target, draft = (tiny_llama(vocab_size=VOCAB, num_hidden_layers=layers).double() for layers in (3, draft_layers))
    with torch.no_grad():
        target.model.layers[-1].self_attn.o_proj.weight *= 0.4
        target.model.layers[-1].mlp.down_proj.weight *= 0.4
    draft.load_state_dict({name: weight for name, weight in target.state_dict().items() if name in draft.state_dict()})
    generator = torch.Generator().manual_seed(1)
    prompts = [torch.randint(2, VOCAB, (1 + 5 * i % 11,), generator=generator).tolist() for i in range(count)]
    models = CachedModel(target, VOCAB), CachedModel(draft, VOCAB)
    texts = [one.tokens.tolist() for one in record_all(models[0], prompts, Ending(NEW))]
    ends = {texts[0][0], texts[1][6]}
    return recorded(*models, prompts, Ending(NEW, frozenset(ends)))


class Counting(ModelDrafter):
    """Says how many nodes were fed to make each level of each tree."""

    def __init__(self, model: Any) -> None:
        super().__init__(model)
        self.fed: list[list[int]] = []

    def draft(self, root: int, plan: Any, *given: Any) -> DraftTree:
        self.fed.append([])
        return super().draft(root, CountedPlan(plan, self.fed[-1]), *given)


class CountedPlan:
    def __init__(self, plan: Any, fed: list[int]) -> None:
        self._plan, self._fed, self.nodes = plan, fed, plan.nodes

    def expand(self, view: Any) -> DraftTree:
        score = view.score

        def counting(parents: Any, tokens: np.ndarray, *how: Any) -> tuple[np.ndarray, np.ndarray]:
            self._fed.append(len(tokens))
            return score(parents, tokens, *how)

        grow = view.grow

        def growing(topology: Topology, depth: int) -> None:
            self._fed.append(len(topology.levels[depth - 1].parents))
            grow(topology, depth)

        view.score, view.grow = counting, growing
        return self._plan.expand(view)


class Live:
    """Decoding each prompt with best-first trees, for real."""

    def __init__(self, pair: Recorded, plan: BestFirstPlan) -> None:
        self.steps: list[list[Step]] = []
        self.tallies: list[Tally] = []
        self.fed: list[list[int]] = []
        for prompt in pair.prompts:
            drafter = Counting(pair.drafter.model)
            made = decode(Verifier(pair.target), drafter, plan, Greedy(), Sampling(), prompt, pair.ending)
            self.steps.append(made.finish().steps)
            self.tallies.append(tally(made.first, made.steps, 0, 0, dynamic=True))
            self.fed += drafter.fed


def expansions(pair: Recorded, plan: BestFirstPlan) -> list[Expansion]:
    trajectories = record_all(pair.target, pair.prompts, pair.ending)
    return [
        expand(pair.drafter.model, prompt, one.tokens, plan)
        for prompt, one in zip(pair.prompts, trajectories, strict=True)
    ]
