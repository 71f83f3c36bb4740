"""What was replayed, in columns: a folder of Parquet files, each a unit of work that was written as a whole.

A line of a file is one combination in one repeat; its prompts, and what was counted of them, are in lists.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from functools import cache
from io import BytesIO
from itertools import count, pairwise
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from specdraft.errors import ResultsError
from specdraft.results.counted import REPLAYED, Counted, NodeCounts
from specdraft.results.files import cannot_write, rank_path_text, write_atomically
from specdraft.results.journal import Key

NODE_COUNTS = NodeCounts._fields[1:]
LISTS = {  # lists of one line that are equally long
    "prompt_id": ("prompt_id", "category", *REPLAYED),
    "lengths": ("lengths",),
    "sizes": ("sizes",),
    "reached": ("reached", "accepted"),
    "node_path": ("node_path", *(f"node_{name}" for name in NODE_COUNTS)),
    "step_prompt": ("step_prompt", "step_drafted", "step_accepted", "step_cut"),
}
TEXTS = ("prompt_id", "category", "node_path")
FIELDS = pa.schema(
    [
        ("combination", pa.string()),
        ("weights", pa.list_(pa.string())),
        ("repeat", pa.int64()),
        ("dynamic", pa.bool_()),
        ("with_steps", pa.bool_()),
        *(
            (name, pa.list_(pa.string() if name in TEXTS else pa.float64()))
            for names in LISTS.values()
            for name in names
        ),
    ]
)
GROUP = 2_000  # rows, about, of a part that are read together


class ReplayedRows(NamedTuple):
    """The rows of one combination and repeat that were replayed together.

    Attributes:
        weights: see `Row`.
        prompt_ids, categories: of each prompt.
        counted: of these prompts, in this order.
    """

    combination: str
    weights: tuple[str, ...]
    repeat: int
    prompt_ids: tuple[str, ...]
    categories: tuple[str, ...]
    counted: Counted


class Stored(NamedTuple):
    """Where rows are: the line of a file, the prompts that they are of, whether their steps are listed, and whether
    their times are estimated."""

    file: str
    line: int
    prompt_ids: frozenset[str]
    with_steps: bool
    estimated: bool


class Parts:
    """The parts of a study.

    Args:
        folder: it is made when the first part is written.

    Attributes:
        damaged: each file that cannot be used, and a line that says why; its rows count as not there.

    Raises:
        ResultsError: a file may not be read.
    """

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._stored: dict[Key, list[Stored]] = {}
        self.damaged: dict[Path, str] = {}
        numbers = [int(path.stem) for path in _files(folder)]
        self._numbers = count(max(numbers, default=0) + 1)
        for path in _files(folder):
            try:
                self._note(path.name, read_part(path))
            except DamagedPartError as error:
                self.damaged[path] = str(error)

    def _note(self, file: str, part: pa.Table) -> None:
        """What is replayed again stands in place of what was there of the same prompts."""
        names = (part[name].to_pylist() for name in ("combination", "weights", "repeat", "with_steps"))
        known = zip(*names, _prompts(part), _estimated(part), strict=True)
        for line, (combination, weights, repeat, steps, prompts, estimated) in enumerate(known):
            before = self._stored.setdefault((combination, tuple(weights), repeat), [])
            before[:] = [stored for stored in before if stored.prompt_ids.isdisjoint(prompts)]
            before.append(Stored(file, line, prompts, steps, estimated))

    def add(self, rows: Sequence[ReplayedRows]) -> None:
        """Write a part. Raises `ResultsError`."""
        try:
            self._folder.mkdir(exist_ok=True)
        except OSError as error:
            raise cannot_write(self._folder, error) from error
        file, part = f"{next(self._numbers):06}.parquet", to_table(rows)
        lines = GROUP * len(rows) // max(1, sum(len(one.prompt_ids) for one in rows))
        write_atomically(self._folder / file, parquet(part, max(1, lines)))
        self._note(file, part)

    def remove_damaged(self) -> list[str]:
        """Remove the files that cannot be used. Returns their lines."""
        for path in self.damaged:
            path.unlink(missing_ok=True)
        return list(self.damaged.values())

    def of(self, key: Key) -> Sequence[Stored]:
        """Where the rows of a combination with these weights, in one repeat, are."""
        return self._stored.get(key, ())

    def __iter__(self) -> Iterator[Key]:
        return iter(self._stored)

    def read(self, keys: Iterable[Key]) -> pa.Table:
        """The lines of these rows, in this order; nothing else stays in memory.

        Raises:
            ResultsError: a part is not there any more as it was.
        """
        chosen = [stored for key in keys for stored in self.of(key)]
        lines: dict[str, list[int]] = {}
        for stored in chosen:
            lines.setdefault(stored.file, []).append(stored.line)
        try:
            parts = [read_part(self._folder / file, some) for file, some in lines.items()]
        except DamagedPartError as error:
            raise ResultsError(f"{error}; run the same command again") from error
        found = ((file, line) for file, some in lines.items() for line in some)
        place = {where: number for number, where in enumerate(found)}
        order = [place[stored.file, stored.line] for stored in chosen]
        return pa.concat_tables([FIELDS.empty_table(), *parts]).take(pa.array(order, pa.int64()))


class DamagedPartError(ValueError):
    """A file holds no part that this program wrote."""


def _files(folder: Path) -> list[Path]:
    return sorted(path for path in folder.glob("*.parquet") if path.stem.isdecimal())


def remove_parts(folder: Path) -> None:
    """Remove every part, and the folder if nothing else is there."""
    for path in _files(folder):
        path.unlink()
    if folder.is_dir() and not any(folder.iterdir()):
        folder.rmdir()


def to_table(rows: Sequence[ReplayedRows]) -> pa.Table:
    """Rows as the lines of a part."""
    text = cache(rank_path_text)
    counted = [row.counted for row in rows]
    steps = [[()] * 4 if c.steps is None else list(c.steps) for c in counted]
    columns: dict[str, list[Any]] = {
        "combination": [row.combination for row in rows],
        "weights": [row.weights for row in rows],
        "repeat": [row.repeat for row in rows],
        "dynamic": [c.dynamic for c in counted],
        "with_steps": [c.steps is not None for c in counted],
        "prompt_id": [row.prompt_ids for row in rows],
        "category": [row.categories for row in rows],
        **{name: [c.sums[name] for c in counted] for name in REPLAYED},
        **{name: [getattr(c, name) for c in counted] for name in ("lengths", "sizes", "reached", "accepted")},
        "node_path": [list(map(text, c.nodes.paths)) for c in counted],
        **{f"node_{name}": [getattr(c.nodes, name) for c in counted] for name in NODE_COUNTS},
        **{name: [listed[place] for listed in steps] for place, name in enumerate(LISTS["step_prompt"])},
    }
    return pa.table([_column(columns[field.name], field.type) for field in FIELDS], schema=FIELDS)


def _column(values: Sequence[Any], kind: pa.DataType) -> pa.Array:
    if kind != pa.list_(pa.float64()):
        return pa.array(values, kind)
    offsets = np.cumsum([0, *map(len, values)])
    return pa.ListArray.from_arrays(offsets.astype(np.int32), np.concatenate([*values, []]).astype(np.float64))


def parquet(table: pa.Table, group: int) -> bytes:
    """A table as the bytes of a file that says itself whether it is damaged; `group` lines can be read alone."""
    content = BytesIO()
    pq.write_table(table, content, row_group_size=group, compression="zstd", write_page_checksum=True)
    return content.getvalue()


def read_part(path: Path, lines: Sequence[int] | None = None) -> pa.Table:
    """A part as it was written, or some of its lines, in this order.

    Raises:
        DamagedPartError: it is torn, changed or of another version.
        ResultsError: it may not be read.
    """
    try:
        content = pa.OSFile(str(path))
    except FileNotFoundError as error:
        raise DamagedPartError(f"{path}: is gone") from error
    except OSError as error:
        raise ResultsError(f"{path}: cannot be read: {error.strerror or error}") from error
    try:
        with content, pq.ParquetFile(content, page_checksum_verification=True) as file:
            part = file.read(use_threads=False) if lines is None else _lines_of(file, np.asarray(lines))
        part.validate(full=True)
    except (pa.ArrowException, OSError, ValueError, IndexError) as error:  # a torn file is an OSError too
        raise DamagedPartError(f"{path}: is damaged") from error
    if not part.schema.equals(FIELDS) or not _whole(part):
        raise DamagedPartError(f"{path}: holds what no sweep writes")
    return part


def _lines_of(file: pq.ParquetFile, lines: np.ndarray) -> pa.Table:
    """Raises `IndexError` where the file has no such line."""
    sizes = np.array([file.metadata.row_group(group).num_rows for group in range(file.num_row_groups)], dtype=np.int64)
    starts = np.cumsum(sizes) - sizes
    of_line = np.searchsorted(starts, lines, "right") - 1
    groups, which = np.unique(of_line, return_inverse=True)
    read = file.read_row_groups(groups.tolist(), use_threads=False)
    first = np.cumsum(sizes[groups]) - sizes[groups]
    return read.take(pa.array(first[which] + lines - starts[of_line]))


def _whole(part: pa.Table) -> bool:
    """Whether nothing is missing, and lists that belong together are equally long."""
    long = {name: pc.list_value_length(part[name]) for names in LISTS.values() for name in names}
    together = all(long[name].equals(long[first]) for first, names in LISTS.items() for name in names)
    return together and not any(column.null_count for column in part.columns)


def _estimated(part: pa.Table) -> list[bool]:
    """Whether each line's times are."""
    return [not np.isnan(seconds).any() for seconds in part["est_s"].to_pylist()]


def _prompts(part: pa.Table) -> list[frozenset[str]]:
    """The prompts of each line; equal sets are one object."""
    column = part["prompt_id"].combine_chunks()
    coded = pc.dictionary_encode(column.flatten())
    names, codes = coded.dictionary.to_pylist(), coded.indices.to_numpy()
    known: dict[bytes, frozenset[str]] = {}
    ends = np.cumsum([0, *pc.list_value_length(column).to_pylist()])
    sets = []
    for start, end in pairwise(ends):
        line = codes[start:end]
        if (which := line.tobytes()) not in known:
            known[which] = frozenset(names[code] for code in line.tolist())
        sets.append(known[which])
    return sets
