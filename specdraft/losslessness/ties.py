"""Where live text differs from plain greedy decoding: a tie that rounding decides, or a bug."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch

from specdraft.decoding.verifier import Verifier
from specdraft.errors import LosslessnessError
from specdraft.losslessness.certificate import largest_tie
from specdraft.models.batch import Batch, causal
from specdraft.models.cached_model import CachedModel
from specdraft.models.check_result import SelfCheck
from specdraft.models.self_check import last_place
from specdraft.trees.draft_tree import DraftTree
from specdraft.trees.topology import Topology

TREE_SIZES = (1, 4, 16, 64)  # of the trees that a difference in a 16-bit type is judged by


def compare_greedy(
    model: CachedModel, check: SelfCheck, prompt_ids: Sequence[int], plain: Sequence[int], decoded: Sequence[int]
) -> dict[str, Any] | None:
    """Compare a decoded continuation with plain greedy decoding.

    Returns:
        None where they are equal; else the first divergence, where rounding decides: a tie. In float32 the two best
        logits are within `max(1e-4, 10 x the self-check's error)` there; in another type the two logits in question
        are within what sequential, batched and tree forwards of this very text differ by in that type.

    Raises:
        LosslessnessError: the first divergence is no near-tie, so something is wrong.
    """
    if list(plain) == list(decoded):
        return None
    position = next(
        (i for i, (p, d) in enumerate(zip(plain, decoded, strict=False)) if p != d), min(len(plain), len(decoded))
    )
    if model.dtype == torch.float32 or position >= min(len(plain), len(decoded)):
        gap, largest = top_two_gap(model, prompt_ids, plain[:position]), largest_tie(check)
    else:
        rivals = [plain[position], decoded[position]]
        gap, largest = rounding_between(model, prompt_ids, plain[:position], rivals)
    if gap <= largest:
        return {"position": position, "gap": gap}
    raise LosslessnessError(
        f"bug: the text differs from plain greedy decoding at token {position}, where the target's two best logits are "
        f"{gap:.3g} apart (a tie would be at most {largest:.3g})"
    )


def top_two_gap(model: CachedModel, prompt_ids: Sequence[int], text: Sequence[int]) -> float:
    """How far apart the two best logits are after a prompt and a text, from one forward."""
    best = model.after(prompt_ids, text).topk(2).values
    return float(best[0] - best[1])


def rounding_between(
    model: CachedModel, prompt_ids: Sequence[int], text: Sequence[int], rivals: Sequence[int]
) -> tuple[float, float]:
    """How far apart the logits of two tokens are after a text, and by how much forwards of that text differ in them.

    Args:
        model: the target.
        prompt_ids: the prompt.
        text: what was decoded after it.
        rivals: the two tokens.

    Returns:
        The gap in a forward without a cache; the sum of what both logits differ by: their ranges over a forward without
        a cache, sequential decoding, a padded batch and trees of several sizes, at least their last place in the
        model's type.
    """
    forwards = [model.after(prompt_ids, text), _sequential(model, prompt_ids, text), _batched(model, prompt_ids, text)]
    trees = [_in_tree(model, prompt_ids, text, nodes) for nodes in TREE_SIZES] if text or not model.encodes else []
    logits = [*forwards, *trees]
    seen = torch.stack([given[list(rivals)] for given in logits])  # [forwards, 2]
    ranges = seen.max(0).values - seen.min(0).values
    differ_by = sum(max(float(r), last_place(logit, model.dtype)) for r, logit in zip(ranges, seen[0], strict=True))
    return float((seen[0, 0] - seen[0, 1]).abs()), differ_by


def _sequential(model: CachedModel, prompt_ids: Sequence[int], text: Sequence[int]) -> torch.Tensor:
    cached = model.another()
    logits = cached.prefill(prompt_ids).logits
    for token in text:
        logits = cached.extend(token)
    return logits


def _batched(model: CachedModel, prompt_ids: Sequence[int], text: Sequence[int]) -> torch.Tensor:
    batch = Batch(model, [prompt_ids, [*prompt_ids, *prompt_ids[:1]]])
    if not text:
        return batch.logits[0]
    order = torch.arange(len(text), device=model.device)[None]
    tokens = torch.tensor([list(text)] * 2, device=model.device)
    return batch.append(tokens, order, causal(0, len(text), model.device))[0, -1]


def _in_tree(model: CachedModel, prompt_ids: Sequence[int], text: Sequence[int], nodes: int) -> torch.Tensor:
    """The last token as the root of so many children."""
    verifier = Verifier(model.another())
    *before, last = text or prompt_ids
    for run in (prompt_ids, before) if text else (before,):
        if run:
            verifier.model.prefill(run)
    star = Topology.from_paths([(rank,) for rank in range(nodes)])
    return verifier.verify(DraftTree(star, [last] * len(star))).logits[0]
