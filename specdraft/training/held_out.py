"""How many tokens of held-out texts a trained drafter gets accepted: by replay, as in a study."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np

from specdraft.decoding.ending import Ending
from specdraft.drafters.pair import Pair
from specdraft.replay.static import pack_traces, replay
from specdraft.sampling.distribution import Sampling
from specdraft.traces.library import pair_traces
from specdraft.traces.store import TraceStore
from specdraft.traces.watch import Watch
from specdraft.trees.shapes.chain import Chain

TOKENS, DEPTH = 64, 8  # new tokens of a text; levels of the chain where a drafter has no limit of its own


class HeldOut(NamedTuple):
    """Chains along greedy texts.

    Attributes:
        texts, tokens: how many, new ones.
        depth: of the chain.
        block_efficiency: tokens of a step, the bonus token included.
        by_depth: of the steps that got so far, how many accepted one more token: depth 1 first.
        loop_share: of the tokens, those that a loop makes easy (see `results.metrics`).
    """

    texts: int
    tokens: int
    depth: int
    block_efficiency: float
    by_depth: list[float]
    loop_share: float


def held_out(pair: Pair, prompts: dict[str, list[int]], store: TraceStore, watch: Watch) -> HeldOut:
    """Try a drafter on the target's greedy continuations of prompts.

    Raises:
        ResultsError: the store cannot be written.
    """
    traces = pair_traces(pair, prompts, Sampling(), Ending(TOKENS, pair.eos_ids), store, watch=watch)
    depth = pair.traits.deepest or DEPTH
    topology = Chain().at(depth).topology
    assert topology is not None
    done = replay(topology, pack_traces(traces, list(prompts)))
    steps, emitted = (int(done.sums[name].sum()) for name in ("steps", "new_tokens"))
    shares = np.divide(done.accepted, done.reached, out=np.zeros(depth), where=done.reached > 0)
    efficiency = (emitted - len(prompts)) / steps if steps else 0.0
    by_depth = [round(float(share), 4) for share in shares]
    loops = round(float(done.sums["looped_tokens"].sum()) / emitted, 4)
    return HeldOut(len(prompts), emitted, depth, round(efficiency, 4), by_depth, loops)
