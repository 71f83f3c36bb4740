"""What predictors learn from: a pair's trees along its texts, what the drafter said in them and what became of them."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence

from specdraft.drafters.pair import Pair
from specdraft.prediction.rows import Recorded
from specdraft.sampling.distribution import Sampling
from specdraft.traces.child_chances import child_chances
from specdraft.traces.library import Expansions, PairTraces, recorded_texts
from specdraft.traces.store import TraceStore
from specdraft.traces.watch import UNWATCHED, Watch
from specdraft.trees.shapes.base import NestedPlan


def recorded_trees(
    pair: Pair,
    names: Sequence[str],
    prompt_ids: Mapping[str, Sequence[int]],
    traces: PairTraces,
    plans: Mapping[str, NestedPlan],
    sampling: Sampling,
    store: TraceStore,
    note: Callable[[str], None] = lambda text: None,
    watch: Watch = UNWATCHED,
) -> list[Recorded]:
    """Of prompts by their ids; what is not in the store is recorded.

    Outcomes of sampled texts are exact chances: children by rank are accepted with the target's probability of their
    token, and the text is one draw of it (see `child_chances`).

    Args:
        pair, prompt_ids, traces, plans, store, note, watch: see `Expansions`.
        sampling: how the texts were made.
    """
    trees = Expansions(pair, prompt_ids, traces, plans, store, described=True)
    trees.record(note, watch)
    chances = {} if sampling.greedy else child_chances(pair, prompt_ids, traces, sampling, store, note, watch)
    of_names = {name: found.chances for name, found in chances.items()}
    texts = recorded_texts(pair, [(prompt_ids[name], traces.trajectories[name]) for name in names])
    return [
        Recorded(text, trees.of(name), trees.nodes_of(name), of_names.get(name))
        for text, name in zip(texts, names, strict=True)
    ]
