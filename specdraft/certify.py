"""How decoding is known to be lossless: every text is compared with the target's own."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Any

import numpy as np
import torch

from specdraft.errors import LosslessnessError
from specdraft.models.cached_model import CachedModel
from specdraft.models.self_check import SelfCheck
from specdraft.trace.record import Trajectory

LARGEST_TIE = 1e-4  # logits


def largest_tie(check: SelfCheck) -> float:
    """The two best logits may be this close for rounding to decide between them."""
    return max(LARGEST_TIE, 10 * check.error)


def near_ties(trajectories: Iterable[Trajectory], check: SelfCheck) -> dict[str, Any]:
    """How many recorded tokens were near-ties: there, a live run may go another way than the recording."""
    gaps = np.concatenate([one.gaps for one in trajectories])
    largest = largest_tie(check)
    return {"tokens": len(gaps), "near_ties": int((gaps <= largest).sum()), "limit": largest, "smallest_gap": float(gaps.min())}


def compare_greedy(
    model: CachedModel, check: SelfCheck, prompt_ids: Sequence[int], plain: Sequence[int], decoded: Sequence[int]
) -> dict[str, Any] | None:
    """Compare a decoded continuation with plain greedy decoding.

    Returns:
        None where they are equal; else the first divergence, whose two best logits are so close
        (`max(1e-4, 10 x the self-check's error)`) that rounding decides: a tie.

    Raises:
        LosslessnessError: the first divergence is no near-tie, so something is wrong.
    """
    if list(plain) == list(decoded):
        return None
    position = next((i for i, (p, d) in enumerate(zip(plain, decoded, strict=False)) if p != d), min(len(plain), len(decoded)))
    gap = top_two_gap(model, [*prompt_ids, *plain[:position]])
    largest = largest_tie(check)
    if gap <= largest:
        return {"position": position, "gap": gap}
    raise LosslessnessError(
        f"bug: the text differs from plain greedy decoding at token {position}, where the target's two best logits are "
        f"{gap:.3g} apart (a tie would be at most {largest:.3g})"
    )


@torch.inference_mode()
def top_two_gap(model: CachedModel, token_ids: Sequence[int]) -> float:
    """How far apart the two best logits are after `token_ids`, from a forward without a cache."""
    out = model.model(input_ids=torch.tensor([list(token_ids)], device=model.device), use_cache=False)
    best = out.logits[0, -1, : model.vocab].float().topk(2).values
    return float(best[0] - best[1])
