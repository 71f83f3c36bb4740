"""A folder of results has one writer at a time."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from filelock import FileLock, Timeout

from specdraft.errors import ResultsError
from specdraft.results.files import cannot_write

LOCK = ".lock"


@contextmanager
def locked(out: Path, what: str = "sweep") -> Iterator[None]:
    """A folder that nobody else writes into meanwhile; it is made if it is not there.

    Args:
        out: the folder.
        what: writes there, for the message.

    Raises:
        ResultsError: another one writes there, or the folder cannot be written.
    """
    lock = FileLock(out / LOCK)
    try:
        out.mkdir(parents=True, exist_ok=True)
        lock.acquire(timeout=0)
    except Timeout as error:
        raise ResultsError(f"{out}: another {what} is writing here") from error
    except OSError as error:
        raise cannot_write(out, error) from error
    try:
        yield
    finally:
        (out / LOCK).unlink(missing_ok=True)
        lock.release()
