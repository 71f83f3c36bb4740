"""`reliability.csv`: how well the scores that rank a drafter's nodes tell what is accepted, kept from run to run."""

from __future__ import annotations

from contextlib import suppress
from pathlib import Path

import pandas as pd

from specdraft.errors import ResultsError
from specdraft.results.files import csv_pieces, write_atomically

FILE = "reliability.csv"
KEYS = ["pair", "drafter", "temperature", "top_k", "top_p", "max_new_tokens"]
GROUP = [*KEYS, "repeat", "scores"]  # what one prediction is about
ALL = [*GROUP, "what", "by", "depth", "rank", "bin", "nodes", "predicted", "accepted"]


class Reliability:
    """The table of a study's folder.

    Args:
        out: the folder; what an earlier run wrote there stays unless it is measured again.
    """

    def __init__(self, out: Path) -> None:
        self._path, self._table = out / FILE, pd.DataFrame(columns=ALL)
        with suppress(ResultsError):  # there is none, or it is damaged: what it said is measured again with the rows
            self._table = read_reliability(self._path)

    def add(self, measured: pd.DataFrame) -> None:
        """Put in what was measured, in the place of what was known of the same predictions."""
        known = pd.MultiIndex.from_frame(self._table[GROUP])
        kept = self._table[~known.isin(pd.MultiIndex.from_frame(measured[GROUP]))]
        self._table = pd.concat([kept, measured], ignore_index=True) if len(kept) else measured

    def write(self) -> None:
        """Write it, if there is anything to say. Raises `ResultsError`."""
        if len(self._table):
            write_atomically(self._path, csv_pieces(self._table))


def read_reliability(path: Path) -> pd.DataFrame:
    """The table of a file. Raises `ResultsError` where it is not one."""
    try:
        table = pd.read_csv(path, keep_default_na=False)
    except (OSError, ValueError) as error:
        raise ResultsError(f"{path}: cannot be read: {error}") from error
    if list(table) != ALL:
        raise ResultsError(f"{path}: expected the columns {', '.join(ALL)}")
    return table
