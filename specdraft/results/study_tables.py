"""A finished study as typed data frames: the reader of what `specdraft sweep` wrote."""

from __future__ import annotations

import json
from collections.abc import Collection, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from itertools import chain
from pathlib import Path
from typing import Any

import pandas as pd
import pyarrow.parquet as pq
from omegaconf import OmegaConf
from omegaconf.errors import OmegaConfBaseException
from yaml import YAMLError

from specdraft.errors import ResultsError
from specdraft.results.comparisons import COLUMNS as COMPARISON_COLUMNS
from specdraft.results.files import PIECE, RECORDS, RECORDS_PARQUET, from_csv
from specdraft.results.kept_tables import ABLATION, OFFSETS, RELIABILITY
from specdraft.results.metrics import DEPTH_RATES, LATENCIES, LATENCY, OVERHEAD, PERPLEXITY, RATIOS, depth_rates
from specdraft.results.summary import LATER, RATIOS_WITH_ENDS, SUMS
from specdraft.results.tables import COMBINATION_KEYS, DETAIL_KEYS, DETAILS, EARLIER_KEYS, KEYS, OPTIONAL

EXPECTED = "expected the folder of a finished study"
COLUMNS = {  # file -> its columns, in order
    "records.csv": [*KEYS, *SUMS, LATENCY, *RATIOS, PERPLEXITY],
    "summary.csv": [*COMBINATION_KEYS, *SUMS, *RATIOS_WITH_ENDS, *LATENCIES],
    "by_category.csv": [*COMBINATION_KEYS, "category", *SUMS, *RATIOS_WITH_ENDS, *LATENCIES],
    "comparisons.csv": COMPARISON_COLUMNS,
    **{file: [*DETAIL_KEYS, *columns] for file, columns in DETAILS.items()},
}
TEXT = {"combination", "pair", "target", "draft", "drafter", "dtype", "tree", "pruning", "length", "cache",
        "acceptance", "draft_temperature", "prompts", "prompt_id", "category", "engine", "rank_path", "tree_a",
        "tree_b", "metric"}  # fmt: skip
WHOLE = {"budget", "nodes", "depth", "batch", "top_k", "max_new_tokens", "turn", "repeat", "seed", "cost_context",
         "cost_batch"}  # fmt: skip
WHOLE_IN = {  # counts are fractions elsewhere: expected values, under replayed sampling
    "lengths.csv": {"acceptance_length"},
    "sizes.csv": {"drafted_tokens"},
    "siblings.csv": {"rank"},
    "steps.csv": {"step", "drafted_tokens", "accepted_tokens", "bonus_tokens", "cut"},
}
# columns that earlier studies do not have, and what they would say
BEFORE = {"turn": 1, **EARLIER_KEYS, **dict.fromkeys(OVERHEAD, 0.0)}


@dataclass(frozen=True, eq=False)
class StudyTables:
    """A study's results.

    Identifiers and labels are text, `budget`, `nodes`, `depth`, `top_k`, `max_new_tokens`, `turn`, `repeat` and `seed`
    are int64; counts, seconds and ratios are float64, and NaN where the file has nothing. See `results/metrics.py` for
    what the columns mean.

    Attributes:
        folder: where the study was read.
        records: one row per combination, prompt, turn and repeat; None where the study was run with
            `output.records=none`.
        summary: one row per combination, with 95 % intervals (`_lo`, `_hi`).
        by_category: one row per combination and category of prompts.
        comparisons: one row per two trees at one budget and metric: their paired difference.
        lengths: one row per combination and acceptance length: steps with exactly that many accepted tokens.
        sizes: one row per combination and number of draft nodes: steps that sent exactly that many; None where no
            tree differs from step to step.
        positions: one row per combination and depth, with the conditional and the marginal rate.
        nodes: one row per combination and rank path.
        siblings: one row per combination, depth and child rank.
        steps: one row per verification step; None unless the study was run with `output.steps=true`.
        reliability: predicted and observed acceptance (see `replay.reliability`); None without best-first trees.
        offsets: acceptance by the distance from the root (see `replay.offsets`); None without replayed greedy texts.
        ablation: what each group of features adds to a predictor; None where nobody asked (see `specdraft fit
            predictor --study`).
        manifest: what was run, on what.
        config: the resolved configuration.
    """

    folder: Path
    manifest: dict[str, Any]
    config: dict[str, Any]
    records: pd.DataFrame | None
    summary: pd.DataFrame
    by_category: pd.DataFrame
    comparisons: pd.DataFrame
    lengths: pd.DataFrame
    positions: pd.DataFrame
    nodes: pd.DataFrame
    siblings: pd.DataFrame
    steps: pd.DataFrame | None = None
    sizes: pd.DataFrame | None = None
    reliability: pd.DataFrame | None = None
    offsets: pd.DataFrame | None = None
    ablation: pd.DataFrame | None = None


def load_study(folder: str | Path) -> StudyTables:
    """Read a results folder.

    Raises:
        ResultsError: it holds no study, or a table is missing, damaged or of another version.
    """
    folder = Path(folder)
    manifest = read_manifest(folder)
    written = [file for file in COLUMNS if file != RECORDS and (file not in OPTIONAL or (folder / file).exists())]
    config = read_config(folder / "config.yaml")
    tables = {Path(file).stem: read_table(folder / file) for file in written}
    tables["positions"] = _with_rates(tables["positions"], tables["summary"])
    kept = {Path(k.file).stem: k.read(folder) for k in (RELIABILITY, OFFSETS, ABLATION) if (folder / k.file).exists()}
    return StudyTables(folder, manifest, config, records=_read_records(folder, config), **tables, **kept)


def _with_rates(positions: pd.DataFrame, summary: pd.DataFrame) -> pd.DataFrame:
    """Those of a study whose table of depths was written before it had rates."""
    if positions[[*DEPTH_RATES]].notna().any(axis=None):
        return positions
    steps = summary.set_index("combination")["steps"]
    return depth_rates(positions, positions["combination"].map(steps).astype(float))


def _read_records(folder: Path, config: Mapping[str, Any]) -> pd.DataFrame | None:
    """The table of all rows; None where that was not wanted."""
    output, there = config.get("output"), any((folder / file).exists() for file in (RECORDS, RECORDS_PARQUET))
    if isinstance(output, Mapping) and output.get("records") == "none" and not there:
        return None
    return read_records(folder)


def read_records(
    folder: Path, columns: Sequence[str] = COLUMNS[RECORDS], combinations: Collection[str] | None = None
) -> pd.DataFrame:
    """The table of all rows, in whichever form it was written. Raises `ResultsError`.

    Args:
        folder: the study's.
        columns: those that are wanted.
        combinations: those whose rows are wanted; all if left out. The others are never in memory together.
    """
    path = folder / RECORDS_PARQUET
    pieces = _pieces_of_parquet(path, columns) if path.exists() else _pieces_of_csv(folder / RECORDS, columns)
    some = [piece if combinations is None else piece[piece["combination"].isin(combinations)] for piece in pieces]
    return pd.concat([piece for piece in some if len(piece)] or some[:1], ignore_index=True)


def _pieces_of_parquet(path: Path, columns: Sequence[str]) -> Iterator[pd.DataFrame]:
    types = {column: _type_of(column, RECORDS) for column in columns}
    try:
        with pq.ParquetFile(path) as file:
            there = file.schema_arrow.names
            _check_columns(path, columns, there)
            wanted = [column for column in columns if column in there]
            none = file.schema_arrow.empty_table().select(wanted)
            for piece in chain([none], file.iter_batches(PIECE, columns=wanted)):
                yield piece.to_pandas().assign(**_before(there)).reindex(columns=[*columns]).astype(types)
    except (OSError, ValueError) as error:  # what Arrow says of a torn file is one of both
        raise ResultsError(f"{path}: cannot be read as a table; {EXPECTED}") from error


def read_table(path: Path, columns: Sequence[str] | None = None) -> pd.DataFrame:
    """One table, or some of its columns; those that no study writes are left out. Raises `ResultsError`."""
    return pd.concat(_pieces_of_csv(path, COLUMNS[path.name] if columns is None else columns), ignore_index=True)


def _pieces_of_csv(path: Path, columns: Sequence[str]) -> Iterator[pd.DataFrame]:
    if not path.exists():
        raise ResultsError(f"{path}: there is no such file; {EXPECTED}")
    header = [*map(str, read_csv(path, nrows=0))]
    _check_columns(path, columns, header)
    types = {column: _type_of(column, path.name) for column in columns if column in header}
    blank = {column: [""] for column, kind in types.items() if kind == "float64"}
    how = {"usecols": [*types], "dtype": types, "keep_default_na": False, "na_values": blank}
    for piece in _csv_pieces_of(path, **how):
        yield piece.assign(**_before(header)).reindex(columns=[*columns])


def _before(header: Collection[str]) -> dict[str, Any]:
    return {column: value for column, value in BEFORE.items() if column not in header}


def _check_columns(path: Path, columns: Sequence[str], header: Sequence[str]) -> None:
    missing = [column for column in columns if column not in (*header, *BEFORE)]
    later = (*LATER, *DEPTH_RATES)
    if missing := [column for column in missing if column.removesuffix("_lo").removesuffix("_hi") not in later]:
        raise ResultsError(f"{path}: has no column {', '.join(missing)}; expected a table of this version of specdraft")


def _type_of(column: str, file: str) -> str:
    if column in TEXT:
        return "str"
    return "int64" if column in WHOLE | WHOLE_IN.get(file, set()) else "float64"


def read_csv(path: Path, **options: Any) -> pd.DataFrame:
    """A CSV file, with its texts as they were. Raises `ResultsError` where it cannot be read."""
    with _readable(path):
        table: pd.DataFrame = pd.read_csv(path, encoding="utf-8", low_memory=False, **options)
    return from_csv(table)


def _csv_pieces_of(path: Path, **options: Any) -> Iterator[pd.DataFrame]:
    """The same, some lines at a time; a piece without lines for a file without lines."""
    with _readable(path), pd.read_csv(path, encoding="utf-8", low_memory=False, chunksize=PIECE, **options) as pieces:
        yield from map(from_csv, pieces)


@contextmanager
def _readable(path: Path) -> Iterator[None]:
    try:
        yield
    except (OSError, ValueError) as error:  # a decoding error is a ValueError, as are an empty and a torn file
        reason = getattr(error, "strerror", None) or next(iter(str(error).splitlines()), type(error).__name__)
        raise ResultsError(f"{path}: cannot be read as a table: {reason}") from error


def read_manifest(folder: Path) -> dict[str, Any]:
    """A study's manifest. Raises `ResultsError` where the folder holds none."""
    if not folder.is_dir():
        raise ResultsError(f"{folder}: no such folder; {EXPECTED}")
    path = folder / "manifest.json"
    try:
        manifest = json.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError as error:
        raise ResultsError(f"{folder}: holds no study (manifest.json is missing); {EXPECTED}") from error
    except (OSError, ValueError, RecursionError) as error:
        raise ResultsError(f"{path}: cannot be read; {EXPECTED}") from error
    if not isinstance(manifest, dict) or "study" not in manifest:
        raise ResultsError(f"{path}: is not a study's; {EXPECTED}")
    return manifest


def read_config(path: Path) -> dict[str, Any]:
    """A study's resolved configuration. Raises `ResultsError`."""
    try:
        config = OmegaConf.to_container(OmegaConf.load(path))
    except FileNotFoundError as error:
        raise ResultsError(f"{path}: there is no such file; {EXPECTED}") from error
    except (OSError, ValueError, YAMLError, OmegaConfBaseException) as error:
        raise ResultsError(f"{path}: cannot be read; {EXPECTED}") from error
    if not isinstance(config, dict):
        raise ResultsError(f"{path}: is not a study's configuration; {EXPECTED}")
    return {str(key): value for key, value in config.items()}
