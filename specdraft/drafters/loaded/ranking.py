"""A model's most probable tokens, in the order that every rank means: by (-logit, token id)."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
import torch

from specdraft.trees.shapes.base import SaidChildren

BLOCK = 16  # tokens, on a processor
FEW = 2**16  # logits; of fewer `torch.topk` is the faster one
CACHED = 2**17  # logits that a processor's cache holds
LEAST_EXPONENT = -80.0  # below, what is added to a sum of at least 1 is lost in any case
SPREAD = 3  # numbers of a distribution that predictors learn from: see `spread`


def rank_tokens(logits: torch.Tensor, count: int) -> torch.Tensor:
    """The `count` most probable tokens of each row, best first: `[m, vocab]` -> `[m, count]` ids.

    Ordered by (-logit, token id), which `torch.topk` does not promise for equals.
    """
    if count == 1:
        return logits.argmax(-1, keepdim=True)
    if logits.device.type != "cpu":
        return rank_by_key(logits, count)
    logits = logits.float()
    if logits.numel() <= FEW and count < logits.shape[-1]:
        best = logits.topk(count + 1)
        if bool((best.values[:, :-1] > best.values[:, 1:]).all()):  # no equals: there is one order
            return best.indices[:, :count]
    return _rank_on_host(logits.contiguous(), count)


def _rank_on_host(logits: torch.Tensor, count: int) -> torch.Tensor:
    """As many blocks as tokens are wanted hold a token each that is not below the lowest of their best ones, so none
    below that is wanted: the few others are sorted, and so all equals of the last one are among them."""
    rows, vocab = logits.shape
    blocks = vocab // BLOCK
    if blocks < count:
        return logits.sort(dim=-1, descending=True, stable=True).indices[:, :count]
    best = logits[:, : blocks * BLOCK].view(rows, BLOCK, blocks).amax(1).numpy()  # of each block
    least = np.partition(best, blocks - count, axis=1)[:, blocks - count]
    values = logits.numpy()
    row, token = np.divmod(np.flatnonzero(values >= least[:, None]), vocab)
    few = np.bincount(row, minlength=rows)
    place = row, np.arange(len(row)) - np.repeat(np.cumsum(few) - few, few)
    tokens, negated = np.zeros((rows, few.max()), dtype=np.int64), np.full((rows, few.max()), np.inf, np.float32)
    tokens[place], negated[place] = token, -values[row, token]
    order = np.argsort(negated, axis=1, kind="stable")  # of equals the lower id is first
    return torch.from_numpy(np.take_along_axis(tokens, order[:, :count], 1))


def rank_by_key(logits: torch.Tensor, count: int) -> torch.Tensor:
    """`rank_tokens` without a look at the result: the id is packed below the logit's bits into one integer key.

    Nothing waits for a GPU here; on a CPU the keys cost several times what the logits do.
    """
    bits = (logits.float() + 0.0).view(torch.int32)  # + 0.0 makes -0.0 equal to 0.0
    ordered = (bits ^ ((bits >> 31) & 0x7FFFFFFF)).long()  # floats in integer order
    ids = torch.arange(logits.shape[-1], device=logits.device)
    return ((ordered << 32) - ids).topk(count, dim=-1).indices


def ranks_of(logits: torch.Tensor, tokens: torch.Tensor) -> torch.Tensor:
    """`[..., vocab]` logits, `[...]` tokens -> `[...]` int32 the rank of each token; -1 of an id that has no logit."""
    score = logits.gather(-1, tokens[..., None])
    ids = torch.arange(logits.shape[-1], device=logits.device)
    ranks = (logits > score).sum(-1) + ((logits == score) & (ids < tokens[..., None])).sum(-1)
    ranks[score[..., 0] == -torch.inf] = -1
    return ranks.int()


def best_children(logits: torch.Tensor, count: int, temperature: float = 1.0) -> tuple[np.ndarray, np.ndarray]:
    """The `count` most probable tokens of each row and the logarithms of their probabilities, on the host.

    `[m, vocab]` logits -> `[m, count]` ids and `[m, count]` float64, best first; one transfer. Ranks are those of the
    logits, probabilities those of softmax(logits / temperature).
    """
    tokens = rank_tokens(logits, count)
    log_probs = log_probs_of(logits, tokens, temperature)
    ids, values = torch.stack([tokens.double(), log_probs.double()]).cpu().numpy()
    return ids.astype(np.int64), values


def log_probs_of(logits: torch.Tensor, tokens: torch.Tensor, temperature: float) -> torch.Tensor:
    """`[m, k]` logarithms of the probabilities softmax(logits / temperature) of each row's tokens, the best first."""
    if temperature == 1:
        return torch.log_softmax(logits, -1).gather(-1, tokens)
    chosen = logits.gather(-1, tokens)
    best = chosen[:, :1]
    return (chosen - best) / temperature - _log_total(logits, best, temperature)[:, None]


def _log_total(logits: torch.Tensor, best: torch.Tensor, temperature: float) -> torch.Tensor:
    """`[m]` the logarithm of the sum of exponentials of (logits - best) / temperature, of `[m, vocab]` and `[m, 1]`.

    On a processor in slices that its cache holds, and without denormal exponentials, which take five times as long.
    """
    rows = max(1, CACHED // logits.shape[-1] if logits.device.type == "cpu" else len(logits))
    slices = [slice(first, first + rows) for first in range(0, max(1, len(logits)), rows)]
    scaled = ((logits[s] - best[s]).mul_(1 / temperature).clamp_min_(LEAST_EXPONENT) for s in slices)
    return torch.cat([part.exp_().sum(-1) for part in scaled]).log_()


def said_children(logits: torch.Tensor, count: int, temperature: float) -> SaidChildren:
    """What a drafter says after some nodes: `[m, vocab]` logits."""
    tokens, tempered, said = children_and_spread(logits, count, temperature)
    entropy, best, second = said.T.astype(np.float64)
    return SaidChildren(tokens, at_one(tempered, best, temperature), tempered, entropy, second)


def children_and_spread(
    logits: torch.Tensor, count: int, temperature: float
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """As `best_children`, and as `spread`; one transfer."""
    tokens = rank_tokens(logits, count)
    said = _spread(logits - logits.gather(-1, tokens[:, :1]), tokens[:, :1])
    whole = _on_host(torch.cat([tokens.double(), log_probs_of(logits, tokens, temperature), said], -1))
    return whole[:, :count].astype(np.int64), whole[:, count:-SPREAD], whole[:, -SPREAD:].astype(np.float32)


def log_probs_of_nodes(logits: torch.Tensor, row: torch.Tensor, tokens: torch.Tensor, temperature: float) -> np.ndarray:
    """`[n]` float64 as `log_probs_of`, of tokens `[n]` each after a row `[n]` of the logits `[m, vocab]`. One
    transfer."""
    if temperature == 1:
        return _on_host(torch.log_softmax(logits, -1)[row, tokens].double())
    best = logits.amax(-1)
    total = _log_total(logits, best[:, None], temperature)
    return _on_host(((logits[row, tokens] - best[row]) / temperature - total[row]).double())


def _on_host(values: torch.Tensor) -> np.ndarray:
    array: np.ndarray = values.cpu().numpy()
    return array


class SaidNodes(NamedTuple):
    """What a drafter says of the n nodes of a tree: see `Features`; `[n]` each, float32."""

    log_prob: np.ndarray
    tempered: np.ndarray
    entropy: np.ndarray
    best: np.ndarray
    second: np.ndarray


def said_nodes(logits: torch.Tensor, row: torch.Tensor, tokens: torch.Tensor, temperature: float) -> SaidNodes:
    """Of nodes with these tokens `[n]`, each chosen from a row `[n]` of the logits `[m, vocab]`. One transfer."""
    best, at = logits.max(-1, keepdim=True)
    below = logits - best
    log_total = _log_total(logits, best, temperature)
    chosen = below[row, tokens]
    said = _spread(below, at)[row]
    own = torch.stack([chosen + said[:, 1], chosen / temperature - log_total[row]], -1)
    return SaidNodes(*_on_host(torch.cat([own, said], -1).T.contiguous()))


def at_one(tempered: np.ndarray, best: np.ndarray, temperature: float) -> np.ndarray:
    """Log-probabilities `[m, K]`, best first, at temperature 1 from those at another one, and the best one's `[m]`."""
    raw: np.ndarray = best[:, None] + temperature * (tempered - tempered[:, :1])
    return raw


def spread(logits: torch.Tensor) -> np.ndarray:
    """`[m, 3]` float32: entropy in nats and the logarithms of the two largest probabilities, of `[m, vocab]` logits."""
    best, at = logits.max(-1, keepdim=True)
    return _spread(logits - best, at).cpu().numpy()


def _spread(below: torch.Tensor, best: torch.Tensor) -> torch.Tensor:
    """See `spread`; of logits `[m, vocab]` whose largest is 0, which are used up, and where that is, `[m, 1]`."""
    exp = below.exp()
    total = exp.sum(-1)
    log_total = total.log()
    entropy = log_total - exp.mul_(below).nansum(-1) / total  # 0 * -inf of an id that the drafter does not have
    second = below.scatter_(-1, best, -torch.inf).amax(-1)
    return torch.stack([entropy, -log_total, second - log_total], -1)
