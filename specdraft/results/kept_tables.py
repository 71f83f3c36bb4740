"""Tables that a study's folder may hold beside those of its rows: measured part by part, kept from run to run."""

from __future__ import annotations

from contextlib import suppress
from pathlib import Path
from typing import NamedTuple

import pandas as pd
from pandas.api.types import is_numeric_dtype

from specdraft.errors import ResultsError
from specdraft.results.files import csv_pieces, from_csv, write_atomically

TEXTS = ["pair", "drafter", "temperature", "top_k", "top_p", "max_new_tokens"]  # what a part was measured on
WORDS = {"pair", "drafter", "scores", "what", "by", "added", "says"}  # columns of text; the others hold numbers


class TableKind(NamedTuple):
    """Which of these tables.

    Attributes:
        file: its name.
        part: the columns that name what is measured at once.
        columns: all of them, in order.
    """

    file: str
    part: list[str]
    columns: list[str]

    def read(self, folder: Path) -> pd.DataFrame:
        """A study's. Raises `ResultsError` where there is none, or something else."""
        path, numbers = folder / self.file, [name for name in self.columns if name not in WORDS]
        try:
            table = from_csv(pd.read_csv(path, keep_default_na=False, na_values={name: [""] for name in numbers}))
        except (OSError, ValueError) as error:
            raise ResultsError(f"{path}: cannot be read: {error}") from error
        if list(table) != self.columns:
            raise ResultsError(f"{path}: expected the columns {', '.join(self.columns)}")
        if wrong := [name for name in numbers if not is_numeric_dtype(table[name])]:
            raise ResultsError(f"{path}: {wrong[0]} holds text where numbers are expected")
        return table


ABLATED = ["log_loss", "auroc", "ece_debiased"]  # scores of conditional acceptance
RELIABILITY = TableKind(  # how well the scores that rank a drafter's nodes tell what is accepted
    "reliability.csv",
    [*TEXTS, "repeat", "scores"],
    [*TEXTS, "repeat", "scores", "what", "by", "depth", "rank", "bin", "nodes", "predicted", "accepted"],
)
OFFSETS = TableKind(  # acceptance by the distance from the root (see `replay.offsets`)
    "offsets.csv",
    TEXTS,
    [*TEXTS, "offset", "places", "top", "reached", "accepted", "fresh"],
)
ABLATION = TableKind(  # what each group of features adds to a predictor (see `prediction.ablation`)
    "ablation.csv",
    TEXTS,
    [*TEXTS, "prompts", "added", "says"]
    + [f"{kind}{name}{end}" for kind in ("", "gained_") for name in ABLATED for end in ("", "_lo", "_hi")],
)


class KeptTable:
    """Such a table of one study.

    Args:
        kind: which one.
        out: the study's folder; what an earlier run wrote there stays unless it is measured again.
    """

    def __init__(self, kind: TableKind, out: Path) -> None:
        self._kind, self._out, self._table = kind, out, pd.DataFrame(columns=kind.columns)
        with suppress(ResultsError):  # there is none, or it is damaged: what it said is measured again
            self._table = kind.read(out)

    def add(self, measured: pd.DataFrame) -> None:
        """Put in what was measured, in the place of what was known of the same parts."""
        part = self._kind.part
        known = pd.MultiIndex.from_frame(self._table[part])
        kept = self._table[~known.isin(pd.MultiIndex.from_frame(measured[part]))]
        self._table = pd.concat([kept, measured], ignore_index=True) if len(kept) else measured

    def write(self) -> None:
        """Write it, if there is anything to say. Raises `ResultsError`."""
        if len(self._table):
            write_atomically(self._out / self._kind.file, csv_pieces(self._table))
