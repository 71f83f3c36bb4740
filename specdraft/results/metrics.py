"""The only place that defines a metric.

Counts are integers, under replayed sampling expected values given the recorded texts; ratios are ratios of sums and
empty when there was no step.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from math import inf, isnan, nan
from typing import TYPE_CHECKING

import numpy as np

from specdraft.trees.step import Step
from specdraft.trees.topology import RankPath

if TYPE_CHECKING:
    import pandas as pd

COUNTS = ("steps", "drafted_tokens", "accepted_tokens", "bonus_tokens", "new_tokens")
PRUNED = ("pruned_tokens",)
OVERHEAD = ("overhead_tokens",)  # of live decoding; replay has none
TIMES = ("wall_s", "prefill_s", "draft_s", "predict_s", "verify_s", "other_s")
LATENCY = "latency_s"
LATENCIES = {"latency_s_p50": 0.5, "latency_s_p95": 0.95}  # quantiles over records
HELPERS = (
    "plain_s",
    "looped_tokens",
    "est_s",
    "est_plain_s",
    "overlap",
    "judged_tokens",
    "proposed_tokens",
    "lost_tokens",
    "starts",
    "nll_sum",
    "scored_tokens",
    "plain_nll_sum",
    "plain_tokens",
    "est_s_spread",
    "est_speedup_spread",
)  # summed for ratios, not written
UNKNOWN = (
    "wall_s",
    "latency_s",
    "prefill_s",
    "draft_s",
    "predict_s",
    "verify_s",
    "plain_s",
    "est_s",
    "est_plain_s",
    "nll_sum",
    "scored_tokens",
    "plain_nll_sum",
    "plain_tokens",
    "est_s_spread",
    "est_speedup_spread",
)  # NaN: the engine has none
# ratio -> (numerator terms, denominator)
RATIOS: dict[str, tuple[tuple[str, ...], str]] = {
    "acceptance_rate": (("accepted_tokens",), "drafted_tokens"),
    "acceptance_length": (("accepted_tokens",), "steps"),
    "block_efficiency": (("accepted_tokens", "bonus_tokens"), "steps"),
    "tokens_per_s": (("new_tokens",), "wall_s"),
    "speedup": (("plain_s",), "wall_s"),
    "est_tokens_per_s": (("new_tokens",), "est_s"),
    "est_speedup": (("est_plain_s",), "est_s"),
    "alpha": (("overlap",), "judged_tokens"),
    "loop_share": (("looped_tokens",), "new_tokens"),
    "pruned_share": (("pruned_tokens",), "proposed_tokens"),
    "regret_tokens": (("lost_tokens",), "starts"),
    "nll": (("nll_sum",), "scored_tokens"),
    "plain_nll": (("plain_nll_sum",), "plain_tokens"),
}
COSTS_SPREAD = {
    "est_tokens_per_s": "est_s_spread",
    "est_speedup": "est_speedup_spread",
}  # over `est_s`: what costs vary
PERPLEXITY = "perplexity"  # exp of `nll`
SHARES = ("acceptance_rate", "alpha", "loop_share", "pruned_share")
MOST_LOOPING = 0.3  # with a larger loop_share, acceptance measures loops


@dataclass
class Tally:
    """What happened while one prompt was decoded with one combination.

    Attributes:
        lengths: accepted tokens -> steps with exactly that many.
        sizes: draft nodes that were sent -> steps with exactly that many; empty where the tree did not differ.
        positions: depth -> [reached, accepted]: steps that got to try a node at this depth (at least
            depth - 1 tokens accepted, the last of them has a child, the end did not cut before), and
            those of them that accepted one.
        nodes: rank path -> [reached, accepted], for every node that was drafted: steps that accepted the node's
            parent (and were not cut
            there), and those that accepted the node. Of dynamic trees only the nodes that were ever reached.
        dynamic: the tree differed from step to step.
        overlap: `sum min(target_probs, draft_probs)`, summed over the tokens after the first; of replayed decoding
            only.
        judged_tokens: how many tokens that sum is over.
        looped_tokens: emitted tokens that end the third or later occurrence of a 4-gram.
        pruned_tokens: drafted nodes that were not sent to the target.
        proposed_tokens: drafted nodes, those too.
        overhead_tokens: tokens that the target read in steps and that are neither roots nor draft nodes.
        lost_tokens: accepted tokens that pruning costs, summed over `starts`, the positions at which a step could
            start: what the whole tree would accept there less what is left of it does. Of replayed pruning only.
        wall_s, prefill_s, draft_s, predict_s, verify_s: measured seconds, of live decoding only; `predict_s` is
            scoring and pruning.
        latency_s: likewise, from when the prompt was begun to the end of its text. Of texts that are decoded side by
            side, the times before are their shares of the time, and this is all of it.
        plain_s: measured seconds of plain decoding of the same prompt.
        nll_sum, plain_nll_sum: minus the sum of the logarithms of the target's probabilities (temperature 1) of the
            text's tokens, `scored_tokens` of them, and of those of plain decoding; of live decoding only.
        est_s, est_plain_s: the same two estimated from the pair's cost curve, of replayed decoding only.
        est_s_spread: standard deviation of `est_s` by the spread of the costs; `est_speedup_spread`: that of
            `est_plain_s / est_s`, as a share of itself, times `est_s`.
    """

    steps: float = 0
    drafted_tokens: float = 0
    accepted_tokens: float = 0
    bonus_tokens: float = 0
    new_tokens: int = 0
    looped_tokens: int = 0
    pruned_tokens: int = 0
    overhead_tokens: int = 0
    proposed_tokens: float = 0
    lost_tokens: int = 0
    starts: int = 0
    wall_s: float = nan
    prefill_s: float = nan
    draft_s: float = nan
    predict_s: float = nan
    verify_s: float = nan
    latency_s: float = nan
    plain_s: float = nan
    est_s: float = nan
    est_plain_s: float = nan
    nll_sum: float = nan
    scored_tokens: float = nan
    plain_nll_sum: float = nan
    plain_tokens: float = nan
    est_s_spread: float = nan
    est_speedup_spread: float = nan
    lengths: Counter[int] = field(default_factory=Counter)
    sizes: Counter[int] = field(default_factory=Counter)
    positions: Mapping[int, Sequence[float]] = field(default_factory=dict)
    nodes: Mapping[RankPath, Sequence[float]] = field(default_factory=dict)
    dynamic: bool = False
    overlap: float = 0.0
    judged_tokens: int = 0

    def score(self, nll_sum: float, plain_nll_sum: float, plain_tokens: int) -> None:
        """Write down how probable the text is, and that of plain decoding."""
        self.nll_sum, self.scored_tokens = nll_sum, self.new_tokens
        self.plain_nll_sum, self.plain_tokens = plain_nll_sum, plain_tokens

    @property
    def other_s(self) -> float:
        """Seconds that were neither prefill nor drafting nor pruning nor verifying (acceptance, cache upkeep)."""
        return self.wall_s - self.prefill_s - self.draft_s - self.predict_s - self.verify_s


def tally(
    first_token: int,
    steps: Sequence[Step],
    wall_s: float,
    plain_s: float,
    dynamic: bool = False,
    prefill_s: float = 0.0,
) -> Tally:
    """Count one decoded prompt.

    Args:
        first_token: the token from the prefill.
        steps: the verification steps after it.
        wall_s: seconds for everything, prefill included.
        plain_s: seconds that plain decoding took for the same prompt.
        dynamic: the trees differ from step to step.
        prefill_s: seconds in which both models read the prompt.
    """
    result = Tally(dynamic=dynamic, new_tokens=1, wall_s=wall_s, draft_s=0.0, verify_s=0.0, plain_s=plain_s)
    result.prefill_s, result.predict_s = prefill_s, 0.0
    positions: dict[int, list[int]] = {}
    nodes: dict[RankPath, list[int]] = {}
    for step in steps:
        result.steps += 1
        result.drafted_tokens += step.tree.num_nodes
        result.pruned_tokens += step.pruned
        result.overhead_tokens += step.tree.overhead_tokens
        result.proposed_tokens += step.tree.num_nodes + step.pruned
        result.accepted_tokens += step.accepted_tokens
        result.bonus_tokens += step.bonus_tokens
        result.new_tokens += len(step.tokens)
        result.draft_s += step.draft_s
        result.predict_s += step.predict_s
        result.verify_s += step.verify_s
        result.lengths[step.accepted_tokens] += 1
        if dynamic:
            result.sizes[step.tree.num_nodes] += 1
        _count_nodes(step, positions, nodes)
    result.positions = positions
    result.nodes = {path: counts for path, counts in nodes.items() if counts[0]} if dynamic else nodes
    tokens = [first_token, *(token for step in steps for token in step.tokens)]
    result.looped_tokens = looped_tokens(tokens)
    return result


def _count_nodes(step: Step, positions: dict[int, list[int]], nodes: dict[RankPath, list[int]]) -> None:
    topology = step.tree.topology
    for path in topology.paths[1:]:
        if path not in nodes:
            nodes[path] = [0, 0]
    tried = [0, *step.accepted][: len(step.accepted) + (0 if step.cut else 1)]
    on_path = set(step.accepted)
    for depth, parent in enumerate(tried, start=1):
        children = topology.children[parent]
        if not children:
            continue
        hit = depth <= len(step.accepted)
        position = positions.setdefault(depth, [0, 0])
        position[0] += 1
        position[1] += hit
        for child in children:
            node = nodes[topology.paths[child]]
            node[0] += 1
            node[1] += child in on_path


def lost_to_pruning(steps: Sequence[Step]) -> int:
    """Accepted tokens that steps of one text would have had on top with the whole trees, each from where it started.

    What follows is the text's whatever the tree, for children that are chosen by rank and a lossless rule.
    """
    lost, following = 0, [token for step in steps for token in step.tokens]
    for step in steps:
        if step.whole is not None:
            lost += len(step.whole.path_along(following)) - step.accepted_tokens
        following = following[len(step.tokens) :]
    return lost


def looped_tokens(tokens: Sequence[int], gram: int = 4, repeats: int = 3) -> int:
    """Tokens that end the `repeats`-th or a later occurrence of a `gram`-gram of the continuation."""
    seen: Counter[tuple[int, ...]] = Counter()
    looped = 0
    for end in range(gram, len(tokens) + 1):
        occurrence = tuple(tokens[end - gram : end])
        seen[occurrence] += 1
        looped += seen[occurrence] >= repeats
    return looped


def add_ratios(table: pd.DataFrame, ratios: Iterable[str] = RATIOS) -> pd.DataFrame:
    """The table with a column per ratio, and `perplexity`; empty where the denominator is 0."""
    import pandas as pd

    found = {}
    for name in ratios:
        terms, denominator = RATIOS[name]
        above, below = sum(table[term].to_numpy(float) for term in terms), table[denominator].to_numpy(float)
        found[name] = above / np.where(below > 0, below, nan)
    found |= {PERPLEXITY: np.exp(found["nll"])} if "nll" in found else {}
    return pd.concat([table, pd.DataFrame(found, index=table.index)], axis=1)


def possible(ratio: str, depth: float = inf) -> tuple[float, float]:
    """The least and the most that a ratio can be with trees of this depth (NaN: of any); a step emits a token at
    least."""
    most = inf if isnan(depth) else depth
    if ratio in SHARES:
        return 0.0, 1.0
    bounds = {"acceptance_length": (0.0, most), "block_efficiency": (1.0, most + 1), "regret_tokens": (0.0, most)}
    return bounds.get(ratio, (0.0, inf))


DEPTH_RATES = ("conditional_rate", "marginal_rate")


def depth_rates(positions: pd.DataFrame, steps: pd.Series[float]) -> pd.DataFrame:
    """Rows of `positions.csv` with the share of steps that accept at a depth.

    Args:
        positions: has `reached` and `accepted`.
        steps: all steps of each row's combination.

    Returns:
        The table with `conditional_rate` (`accepted / reached`) and `marginal_rate` (`accepted / steps`).
    """
    rates = dict(zip(DEPTH_RATES, (positions["reached"], steps), strict=True))
    return positions.assign(**{name: positions["accepted"] / below.where(below > 0) for name, below in rates.items()})
