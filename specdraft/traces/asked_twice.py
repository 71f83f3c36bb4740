"""Whether a served target says the same when it is asked again: kept with the traces, as the texts are."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np

from specdraft.decoding.ending import Ending
from specdraft.drafters.pair import Pair
from specdraft.errors import LeftOutError
from specdraft.models.server.served_files import ServedFiles
from specdraft.traces.library import about_trajectory
from specdraft.traces.listing import AGAIN
from specdraft.traces.record import GREEDY, Trajectory
from specdraft.traces.served import served_trajectories
from specdraft.traces.store import TraceStore

PROMPTS = 3  # that are asked twice: the first ones


class AskedTwice(NamedTuple):
    """What came of it.

    Attributes:
        prompts: that were asked again.
        differing: prompt id -> the first token that differs, and how far apart the two best logits were there.
    """

    prompts: int
    differing: dict[str, dict[str, Any]]

    def as_dict(self) -> dict[str, Any]:
        """For the manifest."""
        same = self.prompts - len(self.differing)
        share = same / self.prompts if self.prompts else None
        return {"asked_twice": {"prompts": self.prompts, "equal_share": share, "differing": self.differing}}


def asked_twice(
    pair: Pair,
    prompts: Mapping[str, Sequence[int]],
    trajectories: Mapping[str, Trajectory],
    ending: Ending,
    store: TraceStore,
) -> AskedTwice:
    """Ask for a few recorded greedy texts once more; those that cannot be had again are not counted."""
    files = pair.files.target
    assert isinstance(files, ServedFiles)
    some = {name: prompts[name] for name in list(trajectories)[:PROMPTS]}
    abouts = {name: about_trajectory(pair, ids, GREEDY, ending, "") | {"kind": AGAIN} for name, ids in some.items()}
    again = {name: tensors["tokens"] for name, about in abouts.items() if (tensors := store.get(about)) is not None}
    missing = {name: ids for name, ids in some.items() if name not in again}
    try:
        for name, said in served_trajectories(files, missing, ending, pair.files.chats) if missing else ():
            again[name] = said.tokens
            store.put(abouts[name], {"tokens": said.tokens})
    except LeftOutError:  # the texts themselves are there
        pass
    compared = {name: _difference(trajectories[name], tokens) for name, tokens in again.items()}
    return AskedTwice(len(again), {name: where for name, where in compared.items() if where is not None})


def _difference(first: Trajectory, again: np.ndarray) -> dict[str, Any] | None:
    """Where two texts part, or None."""
    common = min(len(first.tokens), len(again))
    places = np.flatnonzero(first.tokens[:common] != again[:common])
    if not len(places) and len(first.tokens) == len(again):
        return None
    place = int(places[0]) if len(places) else common
    gap = float(first.gaps[place]) if place < len(first.gaps) else float("nan")
    return {"token": place, "gap": None if np.isnan(gap) else round(gap, 6)}
