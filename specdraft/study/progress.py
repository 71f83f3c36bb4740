"""What a study tells while it runs."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from specdraft.study.timeline import Stage
from specdraft.traces.watch import Watch


class Progress(Watch):
    """What a sweep tells while it runs; a front end overrides what it wants to show.

    Beside the stages of `Watch`, of the pair that is on: rows are counted as they are written down.
    """

    def __enter__(self) -> Progress:
        return self

    def __exit__(self, *exception: object) -> None:
        """Nothing to put away."""

    def start(self, total: int, reused: int) -> None:
        """`total` rows are due, `reused` of them are there already."""

    def plan(self, stages: Sequence[Stage]) -> None:
        """These stages are going to happen."""

    def pair(self, name: str) -> None:
        """A pair's turn; `""`: what belongs to none."""

    def note(self, what: str) -> None:
        """Something that the user should know."""

    def advance(self, rows: int) -> None:
        """So many more rows are done (or given up)."""

    def spent_s(self) -> Mapping[str, Mapping[str, float]]:
        """Pair -> stage -> seconds so far; nothing where nobody keeps the time."""
        return {}

    def failed(self, what: str, error: str) -> None:
        """A combination failed."""
