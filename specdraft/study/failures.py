"""What failed in a study, in this run and in those before it: `failures.jsonl`."""

from __future__ import annotations

import json
from collections.abc import Collection, Container
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from specdraft.errors import OUT_OF_HOST_MEMORY, OUT_OF_MEMORY, LoadError, UserError
from specdraft.models.memory import free_cached, out_of_gpu_memory, out_of_memory
from specdraft.results.files import without_folders, write_atomically

FILE = "failures.jsonl"


@dataclass(frozen=True)
class Failure:
    """A combination that failed: on which prompt (None: before the first), and how to run it again."""

    combination: str
    prompt_id: str | None
    error: str
    overrides: str

    @property
    def is_bug(self) -> bool:
        """Whether text was not the target's, or a rule is not as it claims."""
        return self.error.startswith("bug:")

    def as_dict(self, private_paths: Collection[str] = ()) -> dict[str, Any]:
        """For the file and the manifest, which are shared: of absolute paths the last parts are kept."""
        shared = {name: without_folders(getattr(self, name), private_paths) for name in ("error", "overrides")}
        return asdict(self) | shared


class Failures:
    """This run's failures and earlier ones, one for each combination.

    Args:
        out: the study's folder; a file that cannot be read there is no failure.
    """

    def __init__(self, out: Path) -> None:
        self._path = out / FILE
        self._earlier = _read(self._path)
        self._now: dict[str, Failure] = {}

    def __contains__(self, combination: str) -> bool:
        """Whether the combination failed in this run."""
        return combination in self._now

    @property
    def now(self) -> list[Failure]:
        """This run's."""
        return list(self._now.values())

    def add(self, failure: Failure) -> None:
        """The last failure of a combination is the one that is kept."""
        self._now[failure.combination] = failure

    def standing(self, done: Container[str]) -> list[Failure]:
        """This run's, and earlier ones of combinations that have not been done since."""
        earlier = {name: failure for name, failure in self._earlier.items() if name not in done}
        return list((earlier | self._now).values())


def write_failures(out: Path, failures: list[Failure], private_paths: Collection[str] = ()) -> None:
    """Write the file; `private_paths`: see `StudyPlan`. Raises `ResultsError`."""
    lines = (json.dumps(failure.as_dict(private_paths)) + "\n" for failure in failures)
    write_atomically(out / FILE, "".join(lines))


def _read(path: Path) -> dict[str, Failure]:
    try:
        lines = path.read_text(encoding="utf-8").splitlines()
        failures = [Failure(**json.loads(line)) for line in lines]
    except (OSError, ValueError, TypeError):
        return {}
    return {failure.combination: failure for failure in failures}


def explain(error: Exception) -> str:
    """An error in one line. Where a GPU's memory ran out, what is cached there is freed for what comes next."""
    if isinstance(error, LoadError) and isinstance(error.__cause__, Exception):
        return explain(error.__cause__)
    if out_of_gpu_memory(error):
        free_cached()
        return OUT_OF_MEMORY
    if out_of_memory(error):
        return OUT_OF_HOST_MEMORY
    if isinstance(error, UserError):
        return str(error)
    first_line = next(iter(str(error).strip().splitlines()), "")
    return f"{type(error).__name__}: {first_line}"
