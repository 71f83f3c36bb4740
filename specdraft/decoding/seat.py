"""What one text is decoded with."""

from __future__ import annotations

import time
from typing import NamedTuple

from specdraft.decoding.clock import ALONE, Times
from specdraft.decoding.verifier import Verifier
from specdraft.drafters import Drafter
from specdraft.drafters.pair import Pair
from specdraft.models.cached_model import CachedModel
from specdraft.models.caches import USUAL, with_cache
from specdraft.models.graph_model import GraphModel


class Seat(NamedTuple):
    """Models with a sequence of the text's own.

    Attributes:
        verifier: with the target.
        drafter: None where there is none.
        times: what the text is told of the time.
    """

    verifier: Verifier
    drafter: Drafter | None
    times: Times = ALONE


class Caches:
    """Seats for texts that are decoded one at a time, by the kind of cache: each is made once.

    Args:
        pair: whose models they are.
    """

    def __init__(self, pair: Pair) -> None:
        self._pair = pair
        self._seats = {USUAL: Seat(Verifier.of(pair), pair.drafter)}
        self._graphs: list[GraphModel] = []

    def seat(self, cache: str) -> Seat:
        """With caches of this kind. Raises `UnsupportedModelError`, see `with_cache`."""
        if cache not in self._seats:
            made: dict[int, CachedModel] = {}  # a model that is target and drafter stays one

            def row_of(model: CachedModel) -> CachedModel:
                if id(model) not in made:
                    made[id(model)] = with_cache(model, cache, self._pair.label)
                return made[id(model)]

            verifier = Verifier(row_of(self._pair.target), self._pair.drafter.traits.hidden_layers)
            drafter = self._pair.drafter.another(row_of)
            self._graphs += [model for model in made.values() if isinstance(model, GraphModel)]
            self._seats[cache] = Seat(verifier, drafter, Times(self._now, self._now))
        return self._seats[cache]

    def _now(self) -> float:
        """Seconds so far, without those in which graphs were made."""
        return time.perf_counter() - sum(graph.making_s for graph in self._graphs)

    @property
    def notes(self) -> list[str]:
        """What making graphs took, and what runs without one, for people."""
        shapes = sum(len(graph.made) for graph in self._graphs)
        notes = []
        if shapes:
            seconds = sum(sum(graph.made.values()) for graph in self._graphs)
            notes.append(f"cache=graph: {self._pair.label}: {seconds:.1f} s to make {shapes} graphs, in no time below")
        failed = [why for graph in self._graphs for why in graph.failed.values()]
        if failed:
            lost_s = sum(graph.failing_s for graph in self._graphs)
            notes.append(
                f"cache=graph: {self._pair.label}: {len(failed)} shapes run without a graph (tried for {lost_s:.1f} s, "
                f"in no time below): {failed[0]}"
            )
        return notes
