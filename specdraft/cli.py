"""The command line's `main`: signals, and which exit code an error has.

It imports little before it can be interrupted.
"""

from __future__ import annotations

import os
import signal
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from types import FrameType

SIGNALS = tuple(number for name in ("SIGINT", "SIGTERM", "SIGHUP") if (number := getattr(signal, name, None)))
RESUMED = ("sweep", "train", "tune")  # commands that go on where they were
ENOUGH = 3  # this signal ends the process wherever it is; the one before it says so


class Stopped(BaseException):
    """A signal asked for an end. What is done is written on the way out."""

    def __init__(self, number: int) -> None:
        super().__init__()
        self.exit_code = 128 + number


def main() -> None:
    """Run the command line with the exit codes that the README lists."""
    with _stopped_by_signals():
        try:
            _run()
        except (KeyboardInterrupt, Stopped) as stop:
            command = next((word for word in sys.argv[1:] if not word.startswith("-")), "")
            _say("interrupted" + "; run the same command again to resume" * (command in RESUMED))
            sys.exit(stop.exit_code if isinstance(stop, Stopped) else 128 + signal.SIGINT)


def _run() -> None:
    from specdraft.commands.options import INTERNAL, USAGE
    from specdraft.errors import UserError, plain_text

    try:
        from specdraft.commands.app import app

        app()
    except SystemExit as stop:
        if stop.code == 128 + signal.SIGINT:  # typer makes this of a KeyboardInterrupt
            raise KeyboardInterrupt from stop
        raise
    except UserError as error:
        if "--debug" in sys.argv:
            raise
        _say(f"error: {error}")
        sys.exit(USAGE)
    except Exception as error:
        if "--debug" in sys.argv:
            raise
        _say(plain_text(f"internal error: {type(error).__name__}: {error} (specdraft --debug shows where)"))
        sys.exit(INTERNAL)


def _say(line: str) -> None:
    import typer

    typer.echo(line, err=True)


@contextmanager
def _stopped_by_signals() -> Iterator[None]:
    """The first signal raises `Stopped`, so that what is done is written; one more is waited out, a third ends at once.

    Signals that the process inherited as ignored (`nohup`, a job in the background) stay ignored.
    """
    received: list[int] = []

    def stop(number: int, frame: FrameType | None) -> None:
        received.append(number)
        if len(received) == 1:
            raise Stopped(number)
        if len(received) >= ENOUGH:
            os._exit(128 + received[0])
        os.write(2, b"still writing what is done; once more ends at once\n")

    before = {number: signal.getsignal(number) for number in SIGNALS}
    taken = [number for number, handler in before.items() if handler is not signal.SIG_IGN]
    for number in taken:
        signal.signal(number, stop)
    try:
        yield
    finally:
        for number in taken:
            signal.signal(number, signal.SIG_IGN if received else before[number])  # nothing is left to be stopped
