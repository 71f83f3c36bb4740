"""What is certain of a served target's overlap with a drafter at temperature 1: each tells its most probable tokens."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import NamedTuple

import numpy as np

from specdraft.decoding.ending import Ending
from specdraft.drafters.base import Annotation
from specdraft.drafters.pair import Pair
from specdraft.traces.library import PairTraces, about_trajectory
from specdraft.traces.record import GREEDY
from specdraft.traces.recorder import read_trace
from specdraft.traces.served import ServedTrajectory
from specdraft.traces.store import TraceStore


class AlphaBounds(NamedTuple):
    """Mean of `sum min(target_probs, draft_probs)` along greedy texts, softmax at temperature 1.

    Attributes:
        lower, upper: it lies between them.
        positions: tokens that it is the mean of.
    """

    lower: float
    upper: float
    positions: int


def alpha_bounds(
    pair: Pair, prompts: Mapping[str, Sequence[int]], traces: PairTraces, ending: Ending, store: TraceStore
) -> AlphaBounds | None:
    """Over recorded texts; None where one side tells no probabilities."""
    lower, upper = [np.empty(0)], [np.empty(0)]
    for name, ids in prompts.items():
        about = about_trajectory(pair, ids, GREEDY, ending, "")
        text: ServedTrajectory | None = read_trace(ServedTrajectory, store.get(about))
        if text is not None and text.top_ids.shape[1]:
            certain = overlap_bounds(text, traces.annotations[name])
            lower.append(certain[0])
            upper.append(certain[1])
    positions = sum(map(len, lower))
    return AlphaBounds(_mean(lower), _mean(upper), positions) if positions else None


def overlap_bounds(text: ServedTrajectory, said: Annotation) -> tuple[np.ndarray, np.ndarray]:
    """`[T]` at least and at most, of every token but the prefill's, where both sides tell some.

    A token that only one side tells has at most the other's least told probability; what neither tells shares what is
    left of either. The sums of either side bound all of that too.
    """
    if not said.top_ids.shape[1]:
        return np.empty(0), np.empty(0)
    target, draft = np.exp(text.top_log_probs[1:].astype(np.float64)), said.top_probs[1:].astype(np.float64)
    there = text.top_ids[1:] >= 0
    target = np.where(there, target, 0)
    same = (text.top_ids[1:, :, None] == said.top_ids[1:, None, :]) & there[:, :, None]  # [T, K, L]
    lower: np.ndarray = (np.minimum(target[:, :, None], draft[:, None, :]) * same).sum((1, 2))
    only_target, only_draft = there & ~same.any(2), ~same.any(1)
    least_target, least_draft = np.where(there, target, np.inf).min(1), draft.min(1)
    beside = (np.minimum(target, least_draft[:, None]) * only_target).sum(1)
    beside += (np.minimum(draft, least_target[:, None]) * only_draft).sum(1)
    beside += np.maximum(np.minimum(1 - target.sum(1), 1 - draft.sum(1)), 0)
    shared = [(probs * same.any(axis)).sum(1) for probs, axis in ((target, 2), (draft, 1))]
    upper = lower + np.minimum(beside, np.maximum(np.minimum(1 - shared[0], 1 - shared[1]), 0))
    return lower, np.minimum(upper, 1.0)


def _mean(values: Iterable[np.ndarray]) -> float:
    return float(np.concatenate([*values]).mean())
