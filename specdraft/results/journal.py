"""The journal that a killed sweep resumes from: combinations, and rows that were decoded live."""

from __future__ import annotations

import json
import sys
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, fields
from math import isnan, nan
from pathlib import Path
from typing import Any, NamedTuple

from specdraft.errors import ResultsError
from specdraft.results.files import cannot_write
from specdraft.results.metrics import UNKNOWN, Tally

WHOLE = ("budget", "nodes", "depth", "max_new_tokens", "seed")  # key columns that are whole numbers
COUNTERS = ("lengths", "sizes")  # number of tokens -> steps
Key = tuple[str, tuple[str, ...], int]  # combination, weights, repeat
UNREADABLE = (ValueError, KeyError, TypeError, AttributeError, RecursionError)  # what a damaged line can raise


@dataclass(frozen=True)
class Row:
    """One prompt decoded live with one combination, as the journal keeps it.

    Attributes:
        weights: digests of the target's and the drafter's weights, and of all prompts where the tree was fitted.
        timed_out: the text ended because its time was over.
    """

    combination: str
    weights: tuple[str, ...]
    prompt_id: str
    category: str
    repeat: int
    tally: Tally
    tie: dict[str, Any] | None = None
    steps: list[list[int]] | None = None
    timed_out: bool = False

    def to_json(self) -> str:
        """One line."""
        tally: dict[str, Any] = {field.name: getattr(self.tally, field.name) for field in fields(self.tally)}
        tally |= {name: sorted(getattr(self.tally, name).items()) for name in COUNTERS}
        tally["positions"] = sorted(self.tally.positions.items())
        tally["nodes"] = sorted(self.tally.nodes.items())
        tally |= {name: None if isnan(tally[name]) else tally[name] for name in UNKNOWN}
        values: dict[str, Any] = {
            "row": self.combination,
            "weights": self.weights,
            "prompt_id": self.prompt_id,
            "category": self.category,
        }
        values |= {"repeat": self.repeat, "tally": tally}
        values |= {name: value for name in ("tie", "steps") if (value := getattr(self, name)) is not None}
        values |= {"timed_out": True} if self.timed_out else {}
        return json.dumps(values, separators=(",", ":"))

    @classmethod
    def from_json(cls, values: dict[str, Any]) -> Row:
        """The inverse of `to_json`."""
        tally = dict(values["tally"])
        tally |= {name: Counter({int(a): n for a, n in tally.get(name, [])}) for name in COUNTERS}
        tally["positions"] = {int(d): list(n) for d, n in tally["positions"]}
        tally["nodes"] = {tuple(path): list(n) for path, n in tally["nodes"]}
        tally |= {name: nan if tally.get(name) is None else tally[name] for name in UNKNOWN}  # earlier rows lack some
        weights = tuple(values["weights"])
        _check_types([values["row"], values["prompt_id"], values["category"], *weights], str)
        _check_types([values["repeat"]], int)
        _check_types([value for name, value in tally.items() if name not in (*COUNTERS, "positions", "nodes")], float)
        _check_types([rank for path in tally["nodes"] for rank in path], int)
        counts = [*tally["positions"].values(), *tally["nodes"].values(), *(tally[name].values() for name in COUNTERS)]
        _check_types([number for numbers in counts for number in numbers], float)
        row = (values["row"], weights, values["prompt_id"], values["category"], values["repeat"], Tally(**tally))
        return cls(*row, values.get("tie"), values.get("steps"), values.get("timed_out", False))


def _check_types(values: Iterable[Any], kind: type) -> None:
    """Raise `TypeError` for a value that no sweep writes; whole numbers are `float` too."""
    for value in values:
        if not isinstance(value, (int, float) if kind is float else kind):
            raise TypeError(f"{value!r} is no {kind.__name__}")


class Kept(NamedTuple):
    """A row that is in the file.

    Attributes:
        start: of its line, in bytes.
        with_steps: its steps are listed.
        timed_out, tie: see `Row`.
    """

    start: int
    with_steps: bool
    timed_out: bool
    tie: dict[str, Any] | None

    @classmethod
    def of(cls, row: Row, start: int) -> Kept:
        """A row whose line begins there."""
        return cls(start, row.steps is not None, row.timed_out, row.tie)


class Journal:
    """An append-only file of finished rows, one JSON line each: what a killed sweep resumes from.

    A line is written and flushed when its prompt is done. A torn last line (a kill in the middle of a
    write) is cut off when the journal is opened again; other lines that cannot be read are passed over.
    Rows stay in the file until somebody reads them.

    Attributes:
        combinations: identifier -> key columns.
        weights: identifier -> the weights that the combination last ran with.
    """

    def __init__(self, path: Path) -> None:
        self._path, self._end = path, 0
        self._kept: dict[Key, dict[str, Kept]] = {}
        self.combinations: dict[str, dict[str, Any]] = {}
        self.weights: dict[str, tuple[str, ...]] = {}
        for line, end in _lines(path):
            self._note(line)
            self._end = end
        try:
            self._handle = path.open("ab")
            self._handle.truncate(self._end)
        except OSError as error:
            raise cannot_write(path, error) from error

    def __iter__(self) -> Iterator[Key]:
        return iter(self._kept)

    def __len__(self) -> int:
        return sum(map(len, self._kept.values()))

    def of(self, key: Key) -> Mapping[str, Kept]:
        """The rows of a combination with these weights, in one repeat: prompt -> where it is."""
        return self._kept.get(key, {})

    def read(self, chosen: Iterable[Kept]) -> Iterator[Row]:
        """Rows, in this order. Raises `ResultsError` where the file is not as it was."""
        try:
            with self._path.open("rb") as handle:
                for kept in chosen:
                    handle.seek(kept.start)
                    yield Row.from_json(json.loads(handle.readline()))
        except (OSError, *UNREADABLE) as error:
            raise ResultsError(f"{self._path}: was changed meanwhile; run the same command again") from error

    def _note(self, line: bytes) -> None:
        try:
            values = json.loads(line)
            if "keys" in values:
                keys, weights = dict(values["keys"]), tuple(values["weights"])
                _check_types([keys["combination"], keys["pair"], keys["tree"], *weights], str)
                _check_types([keys[name] for name in WHOLE], int)
                self.combinations[keys["combination"]], self.weights[keys["combination"]] = keys, weights
            elif (row := Row.from_json(values)).combination in self.combinations:
                self._keep(row, self._end)
        except UNREADABLE:
            return

    def add_combinations(self, combinations: Iterable[tuple[dict[str, Any], tuple[str, ...]]]) -> None:
        """Write down what combinations are and which weights they run with, where that is not there already."""
        new = [(k, w) for k, w in combinations if (self._combination(k["combination"])) != (k, w)]
        self._append("".join(json.dumps({"keys": keys, "weights": weights}) + "\n" for keys, weights in new))
        for keys, weights in new:
            self.combinations[keys["combination"]], self.weights[keys["combination"]] = keys, weights

    def _combination(self, name: str) -> tuple[dict[str, Any] | None, tuple[str, ...] | None]:
        return self.combinations.get(name), self.weights.get(name)

    def add_row(self, row: Row) -> None:
        """Write down a finished row."""
        start = self._end
        self._append(row.to_json() + "\n")
        self._keep(row, start)

    def _keep(self, row: Row, start: int) -> None:
        of_key = self._kept.setdefault((row.combination, row.weights, row.repeat), {})
        of_key[sys.intern(row.prompt_id)] = Kept.of(row, start)

    def _append(self, lines: str) -> None:
        written = lines.encode()
        try:
            self._handle.write(written)
            self._handle.flush()
        except OSError as error:
            raise cannot_write(self._path, error) from error
        self._end += len(written)

    def close(self) -> None:
        """Close the file; a write that the disk refused was reported when it was made."""
        try:
            self._handle.close()
        except OSError as error:
            raise cannot_write(self._path, error) from error


def _lines(path: Path) -> Iterator[tuple[bytes, int]]:
    """Whole lines of a file with the offset after each; nothing for a missing file."""
    if not path.exists():
        return
    end = 0
    with path.open("rb") as handle:
        for line in handle:
            end += len(line)
            if line.endswith(b"\n"):
                yield line, end


def read_rows(path: Path) -> Iterator[Row]:
    """The rows of a journal; lines that cannot be read are passed over."""
    for line, _ in _lines(path):
        try:
            values = json.loads(line)
            row = None if "keys" in values else Row.from_json(values)
        except UNREADABLE:
            continue
        if row is not None:
            yield row
