"""The scores that pruning goes by, of every tree that is replayed: recorded once for all trees and policies."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

from specdraft.drafters.base import Expansion, GivenTrees
from specdraft.drafters.pair import Pair
from specdraft.prediction.predictor import Predictor
from specdraft.replay.pruned import one_tree, union_of
from specdraft.traces.library import Expansions, PairTraces
from specdraft.traces.scored import ScoredTrees
from specdraft.traces.store import TraceStore
from specdraft.traces.watch import UNWATCHED, Watch
from specdraft.trees.topology import Topology

if TYPE_CHECKING:
    from specdraft.replay.replayer import Limits


@dataclass(frozen=True)
class TreeScores:
    """Trees of a list of prompts, scored at one temperature for each prompt.

    Attributes:
        union: a tree that holds all static ones; `static` are its scores. None where there are no static trees.
        nested: best-first trees by their limits.
    """

    union: Topology | None
    static: ScoredTrees | None
    nested: Mapping[Limits, ScoredTrees]

    def of_static(self, topology: Topology, names: Sequence[str]) -> list[Expansion]:
        """One static tree of these prompts."""
        assert self.union is not None and self.static is not None
        return one_tree(topology, self.union, [self.static.of(name) for name in names])

    def of_nested(self, which: Limits, names: Sequence[str]) -> list[Expansion]:
        """Best-first trees of these prompts."""
        return [self.nested[which].of(name) for name in names]


def score_trees(
    pair: Pair,
    prompts: Mapping[str, Sequence[int]],
    traces: PairTraces,
    topologies: Sequence[Topology],
    expansions: Mapping[Limits, Expansions],
    temperatures: Mapping[str, float],
    store: TraceStore,
    recorded: Callable[[str], None] = lambda what: None,
    watch: Watch = UNWATCHED,
    predictors: Mapping[str, Predictor] | None = None,
) -> TreeScores:
    """The scores of these trees; what is missing is recorded.

    Args:
        pair, prompts, traces, store, recorded, watch: see `ScoredTrees`.
        topologies: static trees.
        expansions: best-first trees, by their limits.
        temperatures: of each prompt.
        predictors: see `ScoredTrees`.
    """
    given = (pair, prompts, traces, store)
    by = (temperatures, predictors or {})
    union = union_of(topologies) if topologies else None
    static = ScoredTrees(*given, dict.fromkeys(prompts, GivenTrees.of(union)), *by) if union else None
    nested = {which: ScoredTrees(*given, _trees(grown, prompts), *by) for which, grown in expansions.items()}
    for trees in [*([static] if static else []), *nested.values()]:
        trees.record(recorded, watch)
    return TreeScores(union, static, nested)


def _trees(grown: Expansions, names: Mapping[str, Sequence[int]]) -> dict[str, GivenTrees]:
    expanded = {name: grown.of(name) for name in names}
    return {name: GivenTrees(trees.parent, trees.rank) for name, trees in expanded.items()}
