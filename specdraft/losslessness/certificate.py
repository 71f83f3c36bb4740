"""How decoding is known to be lossless: every text is compared with the target's own."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any

import numpy as np
import torch

from specdraft.acceptance import registry
from specdraft.decoding.verifier import Verifier
from specdraft.errors import LosslessnessError
from specdraft.models.batch import Batch
from specdraft.models.cached_model import CachedModel
from specdraft.models.check_result import SelfCheck
from specdraft.models.language_model import LanguageModel
from specdraft.models.self_check import last_place
from specdraft.traces.record import Trajectory
from specdraft.trees.draft_tree import DraftTree
from specdraft.trees.topology import Topology

LARGEST_TIE = 1e-4  # logits, in float32
TREE_SIZES = (1, 4, 16, 64)  # of the trees that a difference in a 16-bit type is judged by
GREEDY = "greedy: every live text was compared with plain greedy decoding of the target; replayed rows are of that text"
SAMPLING = "sampling: what is known of each rule is under rules; replayed rows are of the target's own sampled texts"


def largest_tie(check: SelfCheck) -> float:
    """The two best logits may be this close for rounding to decide between them; in a 16-bit type this is what two
    logits may be rounded by, wherever that is: of a text that did differ, `compare_greedy` looks at the place."""
    return max(LARGEST_TIE, 10 * check.error if check.rounding == check.error else 2 * check.rounding)


def near_ties(trajectories: Iterable[Trajectory], check: SelfCheck) -> dict[str, Any]:
    """How many recorded tokens were near-ties: there, a live run may go another way than the recording."""
    gaps = np.concatenate([trajectory.gaps for trajectory in trajectories])
    largest = largest_tie(check)
    close = int((gaps <= largest).sum())
    return {
        "tokens": len(gaps),
        "near_ties": close,
        "share": close / len(gaps),
        "limit": largest,
        "smallest_gap": float(gaps.min()),
    }


def compare_greedy(
    model: LanguageModel, check: SelfCheck, prompt_ids: Sequence[int], plain: Sequence[int], decoded: Sequence[int]
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
        gap, largest = top_two_gap(model, [*prompt_ids, *plain[:position]]), largest_tie(check)
    else:
        rivals = [plain[position], decoded[position]]
        gap, largest = rounding_between(model, prompt_ids, plain[:position], rivals)
    if gap <= largest:
        return {"position": position, "gap": gap}
    raise LosslessnessError(
        f"bug: the text differs from plain greedy decoding at token {position}, where the target's two best logits are "
        f"{gap:.3g} apart (a tie would be at most {largest:.3g})"
    )


def top_two_gap(model: LanguageModel, token_ids: Sequence[int]) -> float:
    """How far apart the two best logits are after `token_ids`, from a forward without a cache."""
    best = model.after(token_ids).topk(2).values
    return float(best[0] - best[1])


def rounding_between(
    model: LanguageModel, prompt_ids: Sequence[int], text: Sequence[int], rivals: Sequence[int]
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
    whole = [*prompt_ids, *text]
    trees = [_in_tree(model, whole, nodes) for nodes in TREE_SIZES]
    logits = [model.after(whole), _sequential(model, prompt_ids, text), _batched(model, whole), *trees]
    seen = torch.stack([given[list(rivals)] for given in logits])  # [forwards, 2]
    ranges = seen.max(0).values - seen.min(0).values
    differ_by = sum(max(float(r), last_place(logit, model.dtype)) for r, logit in zip(ranges, seen[0], strict=True))
    return float((seen[0, 0] - seen[0, 1]).abs()), differ_by


def _sequential(model: LanguageModel, prompt_ids: Sequence[int], text: Sequence[int]) -> torch.Tensor:
    cached = CachedModel(model.model, model.vocab)
    logits = cached.prefill(prompt_ids).logits
    for token in text:
        logits = cached.extend(token)
    return logits


def _batched(model: LanguageModel, token_ids: Sequence[int]) -> torch.Tensor:
    return Batch(model, [token_ids, [*token_ids, *token_ids[:1]]]).logits[0]


def _in_tree(model: LanguageModel, token_ids: Sequence[int], nodes: int) -> torch.Tensor:
    """The last token as the root of so many children."""
    verifier = Verifier(CachedModel(model.model, model.vocab))
    if len(token_ids) > 1:
        verifier.prefill(token_ids[:-1])
    star = Topology.from_paths([(rank,) for rank in range(nodes)])
    return verifier.verify(DraftTree(star, [token_ids[-1]] * len(star))).logits[0]


def certificate(
    rows: Mapping[str, int],
    combinations: Mapping[str, Mapping[str, Any]],
    ties: list[dict[str, Any]],
    recorded: Mapping[str, Any],
    bugs: list[dict[str, Any]],
    rules: Mapping[str, Any],
    live: Sequence[Mapping[str, Any]],
) -> dict[str, Any]:
    """How a study's losslessness is known, for its manifest.

    Args:
        rows: combination -> how many rows the study has of it.
        combinations: combination -> key columns.
        ties: live rows whose text differs from plain decoding where rounding decides.
        recorded: near-ties of the recorded greedy texts, by pair.
        bugs: failures that say that text was not the target's.
        rules: what enumeration says of the rules of sampled rows (see `proof.Proof.as_dict`).
        live: what live text of the pairs says, with `certify=true` (see `live_check.Checked`).
    """

    def count(says: Callable[[Mapping[str, Any]], bool]) -> int:
        return sum(number for name, number in rows.items() if says(combinations[name]))

    sampled = count(lambda keys: keys["temperature"] > 0)
    compared = count(
        lambda keys: keys["temperature"] == 0 and keys["engine"] == "live" and registry()[keys["acceptance"]].lossless
    )
    greedy = sampled < sum(rows.values()) or not rows
    return {
        "kind": "; ".join([*([GREEDY] if greedy else []), *([SAMPLING] if sampled else [])]),
        "compared": compared,
        "identical": compared - len(ties),
        "replayed": count(lambda keys: keys["engine"] == "replay"),
        "sampled": sampled,
        "recorded": dict(recorded),
        "ties": ties,
        "tie_share": len(ties) / compared if compared else None,
        "bugs": bugs,
        "rules": dict(rules),
        "live": list(live),
    }
