"""What a study tells while it runs."""

from __future__ import annotations


class Progress:
    """What a sweep tells while it runs; a front end overrides what it wants to show."""

    def __enter__(self) -> Progress:
        return self

    def __exit__(self, *exception: object) -> None:
        """Nothing to put away."""

    def start(self, total: int, reused: int) -> None:
        """`total` rows are due, `reused` of them are there already."""

    def pair(self, name: str) -> None:
        """A pair is being loaded."""

    def note(self, what: str) -> None:
        """Something that takes a while was done."""

    def advance(self, rows: int) -> None:
        """So many more rows are done (or given up)."""

    def failed(self, what: str, error: str) -> None:
        """A combination failed."""
