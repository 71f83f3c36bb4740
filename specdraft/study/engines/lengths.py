"""What length policies need of a pair before rows are made: the drafter's own chains along the texts."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence

from specdraft.drafters.pair import Pair
from specdraft.study.combination import Combination
from specdraft.traces.library import Expansions, PairTraces
from specdraft.traces.store import TraceStore
from specdraft.traces.watch import Watch
from specdraft.trees.shapes.best_first import BestFirst


def chains_for_lengths(
    pair: Pair,
    combinations: Iterable[Combination],
    prompt_ids: Mapping[str, Sequence[int]],
    traces: PairTraces,
    store: TraceStore,
    note: Callable[[str], None],
    watch: Watch,
) -> Expansions | None:
    """The longest chain that any policy looks at, at every start of each text; None where none looks.

    A chain is a best-first tree of one child a node, so it is recorded as one.

    Args:
        pair, prompt_ids, traces, store, note, watch: see `ReplayEngine`.
        combinations: that are replayed along these texts.
    """
    looking = [combination for combination in combinations if combination.length.watches]
    if not looking:
        return None
    longest = max(combination.limits.nodes for combination in looking)
    plan = BestFirst(max_depth=longest, max_children=1).at(longest)
    described = any(combination.length.reads_entropy for combination in looking)
    chains = Expansions(pair, prompt_ids, traces, dict.fromkeys(prompt_ids, plan), store, described)
    chains.record(note, watch)
    return chains
