"""The tables of a study's rows as files, which are written some combinations at a time."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import ExitStack, contextmanager
from pathlib import Path

import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq

from specdraft.results.files import (
    RECORDS,
    RECORDS_PARQUET,
    cannot_write,
    csv_pieces,
    flushed,
    placed,
    write_atomically,
)
from specdraft.results.study_tables import COLUMNS, TEXT, WHOLE

SMALL = ("summary.csv", "by_category.csv", "comparisons.csv", "positions.csv")  # a line a combination, or some
Write = Callable[[pd.DataFrame], None]


def write_tables(
    out: Path, pieces: Iterable[Mapping[str, pd.DataFrame]], config: str, records: str = "csv"
) -> dict[str, pd.DataFrame]:
    """Write every table, and the resolved configuration beside them; what was there is replaced when all are whole.

    Args:
        out: the study's folder.
        pieces: of every table, by its file's name, the next lines; one piece is in memory at a time.
        config: the resolved configuration.
        records: in which form `records.csv` is wanted (see `OutputSpec`).

    Returns:
        The small ones.

    Raises:
        ResultsError: a file cannot be written.
    """
    small: dict[str, list[pd.DataFrame]] = {}
    wanted = {RECORDS: {"csv": RECORDS, "parquet": RECORDS_PARQUET}.get(records)}
    with ExitStack() as places, ExitStack() as files:  # all files are whole before the first one is in its place
        writers: dict[str, Write] = {}
        for tables in pieces:
            for name, table in tables.items():
                if name in SMALL:
                    small.setdefault(name, []).append(table)
                if (file := wanted.get(name, name)) is None:
                    continue
                if file not in writers:
                    opened = _parquet if file == RECORDS_PARQUET else _csv
                    temporary = places.enter_context(placed(out / file))
                    writers[file] = files.enter_context(opened(out / file, temporary))
                writers[file](table)
    for name in {RECORDS, RECORDS_PARQUET} - {wanted[RECORDS]}:
        (out / name).unlink(missing_ok=True)
    write_atomically(out / "config.yaml", config)
    return {name: pd.concat(some, ignore_index=True) for name, some in small.items()}


@contextmanager
def _csv(path: Path, temporary: Path) -> Iterator[Write]:
    with _naming(path), flushed(temporary) as handle:

        def write(table: pd.DataFrame) -> None:
            with _naming(path):
                handle.writelines(piece.encode() for piece in csv_pieces(table, header=not handle.tell()))

        yield write


@contextmanager
def _parquet(path: Path, temporary: Path) -> Iterator[Write]:
    kinds = dict.fromkeys(TEXT, pa.string()) | dict.fromkeys(WHOLE, pa.int64())
    schema = pa.schema([(name, kinds.get(name, pa.float64())) for name in COLUMNS[RECORDS]])
    how = {"compression": "zstd", "write_page_checksum": True}
    with _naming(path), flushed(temporary) as handle, pq.ParquetWriter(handle, schema, **how) as file:

        def write(table: pd.DataFrame) -> None:
            with _naming(path):
                file.write_table(pa.Table.from_pandas(table, schema=schema, preserve_index=False))

        yield write


@contextmanager
def _naming(path: Path) -> Iterator[None]:
    """An error in writing one of several files that are open names that one."""
    try:
        yield
    except OSError as error:
        raise cannot_write(path, error) from error
