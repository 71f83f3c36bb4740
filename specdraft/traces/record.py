"""Record a target's trajectories, and what a drafter says along them.

Both run on batches of prompts of unequal length without left padding: prompts are padded on the right,
new tokens go to a common slot behind the longest prompt, and a mask hides the padding. Positions are
each row's own.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import NamedTuple

import numpy as np
import torch
from transformers import DynamicCache

from specdraft.decoding.decode import Ending
from specdraft.drafters.draft_model import rank_tokens
from specdraft.models.cached_model import CachedModel
from specdraft.models.gate import attention_layout
from specdraft.sampling.distribution import Sampling, standardise
from specdraft.sampling.randomness import at_quantile

TOP_K = 16
GREEDY = Sampling()


class Trajectory(NamedTuple):
    """A target's continuation of a prompt.

    Attributes:
        tokens: `[T + 1]` int64; position 0 is the prefill's token.
        gaps: `[T + 1]` float32, how far apart the target's two best logits were at each token.
    """

    tokens: np.ndarray
    gaps: np.ndarray


class Annotation(NamedTuple):
    """What a drafter says along a trajectory, from its raw logits.

    Attributes:
        ranks: `[T + 1]` int32, the drafter's rank of each token after the tokens before it; -1 at
            position 0, which no drafter proposes. Of a drafter whose proposal depends on the distance from
            the root: `[T + 1, O]` by distance, which `trace.replay` reads alike.
        top_ids: `[T + 1, K]` int32, the drafter's most probable tokens, best first.
        top_probs: `[T + 1, K]` float32, their probabilities (softmax at temperature 1).
        entropy: `[T + 1]` float32, of the drafter's distribution, in nats.
    """

    ranks: np.ndarray
    top_ids: np.ndarray
    top_probs: np.ndarray
    entropy: np.ndarray


def _pad(rows: Sequence[Sequence[int]], device: torch.device) -> torch.Tensor:
    """`[B, longest]`, filled up on the right with token 0."""
    longest = max(map(len, rows))
    return torch.tensor([[*row, *[0] * (longest - len(row))] for row in rows], device=device)


@torch.inference_mode()
def record_trajectories(
    model: CachedModel,
    prompts: Sequence[Sequence[int]],
    ending: Ending,
    sampling: Sampling = GREEDY,
    generators: Sequence[torch.Generator] = (),
) -> list[Trajectory]:
    """Continuations of a batch of prompts.

    Args:
        model: the target.
        prompts: token ids of each prompt; one batch.
        ending: when a continuation is over.
        sampling: how tokens are chosen.
        generators: one for each prompt, where tokens are sampled.
    """
    device, lengths = model.device, torch.tensor([len(p) for p in prompts], device=model.device)
    ids, cache = _pad(prompts, device), DynamicCache()
    width = ids.shape[1]
    ends, place = torch.unique(lengths - 1, return_inverse=True)  # logits of the prompts' last tokens only
    positions = torch.arange(width, device=device)[None].expand_as(ids)
    out = model.model(input_ids=ids, position_ids=positions, past_key_values=cache, use_cache=True, logits_to_keep=ends)
    logits = out.logits[torch.arange(len(prompts), device=device), place, : model.vocab].float()
    slots = torch.arange(width, device=device)[None].expand_as(ids)
    slots = torch.where(slots < lengths[:, None], slots, -1)  # the position in each slot; -1: padding
    tokens: list[list[int]] = [[] for _ in prompts]
    gaps: list[list[float]] = [[] for _ in prompts]
    going = set(range(len(prompts)))
    while True:
        best = logits.topk(2).values
        chosen = logits.argmax(-1) if sampling.greedy else _sample(standardise(logits, sampling), generators)
        listed, differences = chosen.tolist(), (best[:, 0] - best[:, 1]).tolist()
        for row in sorted(going):
            tokens[row].append(listed[row])
            gaps[row].append(differences[row])
            if ending.reached(len(tokens[row]), listed[row]):
                going.discard(row)
        if not going:
            return [
                Trajectory(np.array(t, dtype=np.int64), np.array(g, dtype=np.float32))
                for t, g in zip(tokens, gaps, strict=True)
            ]
        positions = lengths + slots.shape[1] - width
        slots = torch.cat([slots, positions[:, None]], 1)
        out = model.model(
            input_ids=chosen[:, None],
            position_ids=positions[:, None],
            attention_mask=_masks(model, slots, positions),
            past_key_values=cache,
            use_cache=True,
        )
        logits = out.logits[:, -1, : model.vocab].float()


def _sample(probs: torch.Tensor, generators: Sequence[torch.Generator]) -> torch.Tensor:
    """One token per row, each with its own generator: what a text is does not depend on its batch."""
    uniforms = torch.cat([torch.rand(1, 1, generator=generator, dtype=torch.float64) for generator in generators])
    return at_quantile(probs, uniforms)


def _masks(model: CachedModel, slots: torch.Tensor, positions: torch.Tensor) -> torch.Tensor | dict[str, torch.Tensor]:
    """Additive masks `[B, 1, 1, S]` for one query per row that sees every slot of its row that is not padding."""
    layout, lowest = attention_layout(model.model.config), torch.finfo(model.dtype).min
    hidden = slots < 0
    full = torch.zeros(slots.shape, dtype=model.dtype, device=slots.device).masked_fill_(hidden, lowest)[:, None, None]
    if layout.window is None:
        return full
    sliding = full.masked_fill((positions[:, None] - slots >= layout.window)[:, None, None], lowest)
    return {"full_attention": full, "sliding_attention": sliding} if layout.mixed else sliding


@torch.inference_mode()
def teacher_forced(
    model: CachedModel, prompts: Sequence[Sequence[int]], trajectories: Sequence[Trajectory]
) -> Iterator[torch.Tensor]:
    """`[T + 1, vocab]` float32 logits before each token of each trajectory; one forward over the batch."""
    rows = [
        [*prompt, *trajectory.tokens[:-1].tolist()] for prompt, trajectory in zip(prompts, trajectories, strict=True)
    ]
    ids = _pad(rows, model.device)
    positions = torch.arange(ids.shape[1], device=model.device)[None].expand_as(ids)
    first = min(map(len, prompts))
    out = model.model(input_ids=ids, position_ids=positions, use_cache=False, logits_to_keep=ids.shape[1] - first + 1)
    for row, (prompt, trajectory) in enumerate(zip(prompts, trajectories, strict=True)):
        start, count = len(prompt) - first, len(trajectory.tokens)
        yield out.logits[row, start : start + count, : model.vocab].float()


@torch.inference_mode()
def annotate(
    model: CachedModel, prompts: Sequence[Sequence[int]], trajectories: Sequence[Trajectory]
) -> list[Annotation]:
    """One teacher-forced forward of the drafter over prompts and their trajectories; one batch.

    Shapes: see `Annotation`.
    """
    before = teacher_forced(model, prompts, trajectories)
    return [
        _annotation(logits, torch.tensor(t.tokens.tolist(), device=model.device))
        for logits, t in zip(before, trajectories, strict=True)
    ]


def _annotation(logits: torch.Tensor, tokens: torch.Tensor) -> Annotation:
    """`logits` `[T + 1, vocab]` before each of `tokens` `[T + 1]`."""
    own = logits.gather(-1, tokens[:, None])
    ids = torch.arange(logits.shape[-1], device=logits.device)
    ranks = (logits > own).sum(-1) + ((logits == own) & (ids < tokens[:, None])).sum(-1)
    ranks[0] = -1
    log_probs = torch.log_softmax(logits, -1)
    top = rank_tokens(logits, min(TOP_K, logits.shape[-1]))
    entropy = -(log_probs.exp() * log_probs).sum(-1)
    values = (ranks.int(), top.int(), log_probs.gather(-1, top).exp(), entropy)
    return Annotation(*(value.cpu().numpy() for value in values))


def batches(items: Sequence[str], size: int) -> Iterator[Sequence[str]]:
    """Runs of at most `size` items."""
    for start in range(0, len(items), size):
        yield items[start : start + size]
