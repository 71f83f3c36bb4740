"""Which of several ways of drafting is the fastest, and by how much the fastest of one family beats that of another.

The fastest of many looks faster than it is: it is chosen with the noise of the prompts that it is measured on. Here it
is chosen on one half of the prompts and timed on the other, each half in turn.

Letters: P prompts, C candidates.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import NamedTuple

import numpy as np
import pandas as pd

from specdraft.results.bounds import bounds, error_share, ratios_of_sums, with_error
from specdraft.results.intervals import Interval
from specdraft.results.two_halves import mixed, on_other_half, picked


class Times(NamedTuple):
    """Seconds of candidates on the same prompts.

    Attributes:
        names: `[C]`.
        seconds: `[C, P]` each candidate's decoding of each prompt.
        plain_s: `[P]` plain decoding of the same texts.
        categories: `[P]` each prompt's.
    """

    names: Sequence[str]
    seconds: np.ndarray
    plain_s: np.ndarray
    categories: Sequence[str]

    @classmethod
    def estimated(cls, records: pd.DataFrame, names: Sequence[str]) -> Times:
        """Out of a study's replayed records, whose texts are the same for all candidates.

        Args:
            records: rows of one pair, drafter and sampling, with estimates of time.
            names: the columns that tell candidates apart; their values make up the name.
        """
        spent = records["new_tokens"] / records["est_tokens_per_s"]
        told = records.assign(
            name=records[list(names)].astype(str).agg(" ".join, axis=1),
            spent=spent,
            plain=spent * records["est_speedup"],
        )
        by_prompt = told.groupby(["name", "prompt_id"], observed=True)[["spent", "plain"]].sum().unstack("prompt_id")
        seconds, plain = by_prompt["spent"], by_prompt["plain"]
        kinds = told.drop_duplicates("prompt_id").set_index("prompt_id")["category"].astype(str)
        return cls(
            [*seconds.index], seconds.to_numpy(float), plain.to_numpy(float)[0], kinds[seconds.columns].to_list()
        )

    def only(self, wanted: Sequence[bool]) -> Times:
        """Some of the candidates."""
        kept = np.flatnonzero(wanted)
        return self._replace(names=[self.names[int(place)] for place in kept], seconds=self.seconds[kept])


class Fastest(NamedTuple):
    """The fastest of a family.

    Attributes:
        name: of what is fastest on all prompts.
        seconds: `[P]` of what is fastest on the other half of the prompts.
    """

    name: str
    seconds: np.ndarray


def fastest(times: Times, halves: np.ndarray) -> Fastest:
    """Chosen on the half that a prompt is not in; `halves` `[P]` has 0 and 1. Raises `ValueError` without any."""
    if not times.names:
        raise ValueError("there are no candidates")
    speeds = ratios_of_sums(np.broadcast_to(times.plain_s, times.seconds.shape), times.seconds)
    seconds = mixed(speeds, picked(on_other_half(speeds, halves)), halves).below[0]
    return Fastest(times.names[int(times.seconds.sum(1).argmin())], seconds)


def speed_ratio(
    slower_s: np.ndarray, faster_s: np.ndarray, categories: Sequence[str], costs_share: float = 0.0
) -> Interval:
    """`sum(slower_s) / sum(faster_s)` of `[P]` seconds each on the same prompts and texts: how many times the speed.

    The interval is over prompts, paired; where all of them are alike there is none. It also holds the costs' own error:
    `costs_share` is the standard deviation of the ratio by it, as a share of the ratio.
    """
    ratio = ratios_of_sums(slower_s[None], faster_s[None])
    ends = bounds(ratio, np.unique(np.asarray(categories), return_inverse=True)[1])
    wider = with_error(ratio.estimates, ends, np.array([costs_share]))
    return Interval(float(ratio.estimates[0]), *map(float, wider[0]))


def costs_shares(times: Times, whole: Sequence[Interval]) -> np.ndarray:
    """`[C]` how much the costs' own error moves each candidate's speed-up over plain decoding, as a share of it: what
    its interval holds beside the prompts.

    Args:
        times: of the candidates.
        whole: their `est_speedup` in a study's summary.
    """
    ratios = ratios_of_sums(np.broadcast_to(times.plain_s, times.seconds.shape), times.seconds)
    ends = bounds(ratios, np.unique(np.asarray(times.categories), return_inverse=True)[1])
    return error_share(ratios.estimates, ends, np.array([[one.low, one.high] for one in whole]))


def verdict(ratio: Interval, best: str, other: str) -> str:
    """Which of two is faster beyond the interval; "open" where that is not known."""
    if not ratio.known:
        return "equal" if ratio.value == 1 else "open"
    return best if ratio.low > 1 else other if ratio.high < 1 else "open"


def contest(times: Times, families: Mapping[str, Sequence[bool]], halves: np.ndarray) -> dict[str, Fastest]:
    """The fastest of each family that has a candidate; see `fastest`."""
    return {name: fastest(times.only(members), halves) for name, members in families.items() if any(members)}
