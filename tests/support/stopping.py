"""Training that is stopped."""

from __future__ import annotations

from specdraft.traces.watch import Watch


class Stop(Watch):
    """Ctrl-C after so many steps."""

    def __init__(self, after: int) -> None:
        self._stage, self._left = "", after

    def stage(self, name: str, due: float, unit: str) -> None:
        self._stage = name

    def done(self, amount: float) -> None:
        self._left -= self._stage == "train"
        if self._left < 0:
            raise KeyboardInterrupt
