"""What is known of draft nodes before the target runs, and the columns that predictors read of it."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import NamedTuple

import numpy as np

DEEPEST, LAST_RANK = 8, 15  # one-hot columns: what is deeper, or ranked lower, shares the last one
LEAST = -30.0  # logarithms of probabilities below this one are no different to any predictor
DEPTHS, RANKS = (np.eye(count, dtype=np.float32) for count in (DEEPEST, LAST_RANK + 1))  # one-hot rows
CERTAIN = 1e-6  # 1 - probability at least so much, so that log-odds are finite


class Features(NamedTuple):
    """Of draft nodes side by side, arrays of one shape: `[rows]`, `[T, N]` of recorded trees, `[m, K]` of the children
    of m nodes that are being drafted. Logarithms are natural; distributions are softmax at temperature 1.

    Attributes:
        depth, rank: of the node; the root's children have depth 1.
        log_prob: of the node after its parent; `tempered`: the same at the temperature of the scores that chose the
            tree, equal to it for raw ones.
        path: the sum of `log_prob` from the root down.
        entropy, best, second: of the distribution after the parent: nats, and the logarithms of its two largest
            probabilities.
        parent_rank: -1 below the root, where the other `parent_` fields are 0: what the parent's own `log_prob`,
            `entropy`, `best` and `second` are.
        loop: whether the node ends a 4-gram that stands in the text or the path before.
        extra: `[..., k]` further columns, k may be 0.
    """

    depth: np.ndarray
    rank: np.ndarray
    log_prob: np.ndarray
    tempered: np.ndarray
    path: np.ndarray
    entropy: np.ndarray
    best: np.ndarray
    second: np.ndarray
    parent_rank: np.ndarray
    parent_log_prob: np.ndarray
    parent_entropy: np.ndarray
    parent_best: np.ndarray
    parent_second: np.ndarray
    loop: np.ndarray
    extra: np.ndarray

    def at(self, index: np.ndarray | slice | tuple[np.ndarray, ...]) -> Features:
        """Some of the nodes; `index` as numpy takes it, over the shape that all fields share."""
        return Features(*(field[index] for field in self))


def roots(count: int, extras: int = 0) -> Features:
    """`[count]` what `children` takes as the nodes above the first level."""
    zero, none = np.zeros(count), np.zeros(count, dtype=np.int64)
    values = dict.fromkeys(Features._fields, zero) | {"depth": none, "rank": none - 1, "parent_rank": none - 1}
    values |= {"loop": np.zeros(count, dtype=bool), "extra": np.zeros((count, extras))}
    return Features(**values)


class Siblings(NamedTuple):
    """What the drafter says after m nodes.

    Attributes:
        log_probs: `[m, K]` of its best tokens, best first; `tempered`: see `Features`.
        entropy: `[m]`; `second`: `[m]` the logarithm of the second largest probability, also where K is 1.
        loop: `[m, K]`, where a predictor reads it.
        extra: `[m, K, k]` likewise.
    """

    log_probs: np.ndarray
    tempered: np.ndarray
    entropy: np.ndarray
    second: np.ndarray
    loop: np.ndarray | None = None
    extra: np.ndarray | None = None


def children(above: Features, siblings: Siblings) -> Features:
    """`[m, K]` the children of m nodes that are being drafted; a level's are `above` of the next one by `at`."""
    shape = siblings.log_probs.shape

    def each(values: np.ndarray) -> np.ndarray:
        return np.broadcast_to(values[:, None], shape)

    return Features(
        each(above.depth + 1),
        np.broadcast_to(np.arange(shape[1]), shape),
        siblings.log_probs,
        siblings.tempered,
        each(above.path) + siblings.log_probs,
        each(siblings.entropy),
        each(siblings.log_probs[:, 0]),
        each(siblings.second),
        each(above.rank),
        each(above.log_prob),
        each(above.entropy),
        each(above.best),
        each(above.second),
        np.zeros(shape, dtype=bool) if siblings.loop is None else siblings.loop,
        np.zeros((*shape, 0)) if siblings.extra is None else siblings.extra,
    )


def only_tempered(depth: np.ndarray, rank: np.ndarray, tempered: np.ndarray, loop: np.ndarray) -> Features:
    """Nodes for a predictor that reads no more of them; the other fields mean nothing."""
    known = {"depth": depth, "rank": rank, "tempered": tempered, "loop": loop}
    return Features(**dict.fromkeys(Features._fields, tempered) | known | {"extra": tempered[..., None][..., :0]})


def log_odds(log_prob: np.ndarray) -> np.ndarray:
    """`log(p / (1 - p))` of `log p`, finite."""
    bounded = np.maximum(log_prob, LEAST)
    odds: np.ndarray = bounded - np.log(np.maximum(-np.expm1(bounded), CERTAIN))
    return odds


def _raw(f: Features, out: np.ndarray) -> None:
    out[..., 0], out[..., 1] = np.maximum(f.log_prob, LEAST), log_odds(f.log_prob)


def _tempered(f: Features, out: np.ndarray) -> None:
    out[..., 0], out[..., 1] = np.maximum(f.tempered, LEAST), log_odds(f.tempered)


def _place(f: Features, out: np.ndarray) -> None:
    out[..., :DEEPEST] = np.take(DEPTHS, f.depth - 1, axis=0, mode="clip")
    out[..., DEEPEST:] = np.take(RANKS, f.rank, axis=0, mode="clip")


def _spread(f: Features, out: np.ndarray) -> None:
    out[..., 0], out[..., 1] = f.entropy, log_odds(f.best)
    np.minimum(f.best - f.second, -LEAST, out=out[..., 2])


def _parent(f: Features, out: np.ndarray) -> None:
    out[..., 0], out[..., 1] = f.parent_rank < 0, f.parent_rank == 0
    out[..., 2], out[..., 3] = np.maximum(f.parent_log_prob, LEAST), f.parent_entropy
    out[..., 4] = np.minimum(f.parent_best - f.parent_second, -LEAST)
    out[..., 5] = np.maximum(f.path - f.log_prob, LEAST)


def _loop(f: Features, out: np.ndarray) -> None:
    out[..., 0] = f.loop


def _extra(f: Features, out: np.ndarray) -> None:
    out[...] = f.extra


class Group(NamedTuple):
    """Columns that go together: how many, and what writes them into `[..., width]`; a width of None: as many as `extra`
    has."""

    width: int | None
    fill: Callable[[Features, np.ndarray], None]


GROUPS = {
    "raw": Group(2, _raw),
    "temperature": Group(2, _tempered),
    "place": Group(DEEPEST + LAST_RANK + 1, _place),
    "spread": Group(3, _spread),
    "parent": Group(6, _parent),
    "loop": Group(1, _loop),
    "extra": Group(None, _extra),
}


def columns(features: Features, groups: Sequence[str]) -> np.ndarray:
    """`[..., F]` float32, the columns of some groups side by side."""
    extras = features.extra.shape[-1]
    widths = [extras if (width := GROUPS[name].width) is None else width for name in groups]
    table = np.empty((*features.depth.shape, sum(widths)), dtype=np.float32)
    end = 0
    for name, width in zip(groups, widths, strict=True):
        GROUPS[name].fill(features, table[..., end : end + width])
        end += width
    return table
