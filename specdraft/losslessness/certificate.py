"""How decoding is known to be lossless: every text is compared with the target's own."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import numpy as np

from specdraft.acceptance import registry
from specdraft.errors import LosslessnessError
from specdraft.models.language_model import LanguageModel
from specdraft.models.self_check import SelfCheck
from specdraft.results.journal import Row
from specdraft.traces.record import Trajectory

LARGEST_TIE = 1e-4  # logits
GREEDY = "greedy: every live text was compared with plain greedy decoding of the target; replayed rows are of that text"
SAMPLING = "sampling: what is known of each rule is under rules; replayed rows are of the target's own sampled texts"


def largest_tie(check: SelfCheck) -> float:
    """The two best logits may be this close for rounding to decide between them."""
    return max(LARGEST_TIE, 10 * check.error)


def near_ties(trajectories: Iterable[Trajectory], check: SelfCheck) -> dict[str, Any]:
    """How many recorded tokens were near-ties: there, a live run may go another way than the recording."""
    gaps = np.concatenate([one.gaps for one in trajectories])
    largest = largest_tie(check)
    return {
        "tokens": len(gaps),
        "near_ties": int((gaps <= largest).sum()),
        "limit": largest,
        "smallest_gap": float(gaps.min()),
    }


def compare_greedy(
    model: LanguageModel, check: SelfCheck, prompt_ids: Sequence[int], plain: Sequence[int], decoded: Sequence[int]
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
    position = next(
        (i for i, (p, d) in enumerate(zip(plain, decoded, strict=False)) if p != d), min(len(plain), len(decoded))
    )
    gap = top_two_gap(model, [*prompt_ids, *plain[:position]])
    largest = largest_tie(check)
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


def certificate(
    rows: Sequence[Row],
    combinations: Mapping[str, Mapping[str, Any]],
    recorded: Mapping[str, Any],
    bugs: list[dict[str, Any]],
    rules: Mapping[str, Any],
    live: Sequence[Mapping[str, Any]],
) -> dict[str, Any]:
    """How a study's losslessness is known, for its manifest.

    Args:
        rows: the study's.
        combinations: identifier -> key columns.
        recorded: near-ties of the recorded greedy texts, by pair.
        bugs: failures that say that text was not the target's.
        rules: what enumeration says of the rules of sampled rows (see `proof.Proof.as_dict`).
        live: what live text of the pairs says, with `certify=true` (see `live_check.Checked`).
    """
    keys = [combinations[row.combination] for row in rows]
    sampled = sum(own["temperature"] > 0 for own in keys)
    ties = [{"combination": r.combination, "prompt_id": r.prompt_id} | r.tie for r in rows if r.tie]
    compared = sum(
        own["temperature"] == 0 and own["engine"] == "live" and registry()[own["acceptance"]].lossless for own in keys
    )
    return {
        "kind": "; ".join([*([GREEDY] if sampled < len(rows) or not rows else []), *([SAMPLING] if sampled else [])]),
        "compared": compared,
        "identical": compared - len(ties),
        "replayed": sum(own["engine"] == "replay" for own in keys),
        "sampled": sampled,
        "recorded": dict(recorded),
        "ties": ties,
        "bugs": bugs,
        "rules": dict(rules),
        "live": list(live),
    }
