"""How decoding is known to be lossless: every text is compared with the target's own."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any

import numpy as np

from specdraft.acceptance import registry
from specdraft.models.check_result import SelfCheck
from specdraft.traces.record import Trajectory

LARGEST_TIE = 1e-4  # logits, in float32
GREEDY = "greedy: every live text was compared with plain greedy decoding of the target; replayed rows are of that text"
SAMPLING = "sampling: what is known of each rule is under rules; replayed rows are of the target's own sampled texts"


def largest_tie(check: SelfCheck) -> float:
    """The two best logits may be this close for rounding to decide between them; in a 16-bit type this is what two
    logits may be rounded by, wherever that is: of a text that did differ, `compare_greedy` looks at the place."""
    return max(LARGEST_TIE, 10 * check.error if check.rounding == check.error else 2 * check.rounding)


def near_ties(trajectories: Iterable[Trajectory], check: SelfCheck) -> dict[str, Any]:
    """How many recorded tokens were near-ties: there, a live run may go another way than the recording."""
    every = np.concatenate([trajectory.gaps for trajectory in trajectories])
    gaps, largest = every[~np.isnan(every)], largest_tie(check)
    close, unknown = int((gaps <= largest).sum()), len(every) - len(gaps)
    return {
        "tokens": len(every),
        "near_ties": close,
        "share": close / len(gaps) if len(gaps) else None,
        "limit": largest,
        "smallest_gap": float(gaps.min()) if len(gaps) else None,
        **({"tokens_without_gap": unknown} if unknown else {}),
    }


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
