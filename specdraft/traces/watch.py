"""Who is told of work that takes a while."""

from __future__ import annotations


class Watch:
    """Told of each stage of the work and how far it is; this one does not listen."""

    def stage(self, name: str, due: float, unit: str) -> None:
        """A stage begins with so much to do, in units of its own; 0: all of it is there already."""

    def ready(self, amount: float) -> None:
        """What precedes so much of the stage is done: its share of the time is not that of what follows."""

    def done(self, amount: float) -> None:
        """So much more of the stage is done."""


UNWATCHED = Watch()
