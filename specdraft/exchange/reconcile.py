"""A file of another engine beside a study of ours."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import pandas as pd

from specdraft.errors import ConfigError
from specdraft.exchange.explain import Possibility, compared, other_definitions, other_settings, other_studies
from specdraft.exchange.formats import read
from specdraft.exchange.golden import Held, held_against
from specdraft.exchange.reading import Reading
from specdraft.exchange.rows import chosen_rows, name_of, telling
from specdraft.exchange.source import ForeignFile
from specdraft.results.metrics import depth_rates
from specdraft.results.study_side import StudySide, read_side, refuse_twice
from specdraft.results.study_tables import read_table

POSITIONS = "positions.csv"
MOST_ROWS = 12
NO_TEMPLATE = (
    "not computed: another chat template, other prompts, another precision. Run the study that way and give both: "
    "--study A --study B"
)


@dataclass(frozen=True, eq=False)
class Reconciled:
    """What came of it.

    Attributes:
        reading: the file's figures.
        study: None where none was given; the rest is empty then.
        row: what the row compared with is called; empty where several match.
        matching: rows that match, by name, each beside the file's figures: one, or those that the words left.
        possibilities: of the one row: other definitions, then other settings, the nearest first.
        positions: the row's `positions.csv` with its rates; None where it is not there.
        notes: a line each.
    """

    reading: Reading
    study: StudySide | None = None
    row: str = ""
    matching: dict[str, list[Possibility]] = field(default_factory=dict)
    possibilities: list[Possibility] = field(default_factory=list)
    positions: pd.DataFrame | None = None
    notes: list[str] = field(default_factory=list)

    @property
    def comparison(self) -> list[Possibility]:
        """The one row's figures beside the file's."""
        return self.matching.get(self.row, [])


def reconcile(file: ForeignFile, folders: Sequence[Path], wanted: Sequence[str]) -> Reconciled:
    """Read a file, and set it beside a row of a study.

    Args:
        file: of any known format.
        folders: results folders: the first is compared with, the others are the same pair measured otherwise.
        wanted: which row: `tree=chain`, `budget=4`.

    Raises:
        ConfigError: the file is of no known kind, or no row matches.
        ResultsError: a folder holds no study.
    """
    reading = read(file)
    if not folders:
        if wanted:
            raise ConfigError(f"{wanted[0]} names a row of a study; expected --study DIR with it")
        return Reconciled(reading)
    refuse_twice(folders)
    study, *others = map(read_side, folders)
    rows, how = _rows(study, wanted, reading)
    keys = telling(study.summary)
    matching = {name_of(row, keys): compared(reading, row) for _, row in rows.iterrows()}
    if len(rows) != 1:
        return Reconciled(reading, study, "", _nearest(matching), notes=[how])
    row = rows.iloc[0]
    nearest = sorted(other_settings(reading, row, study.summary), key=lambda one: abs(one.theirs - one.ours.value))
    others_say = [*other_studies(reading, row, study, others)]
    possibilities = [*other_definitions(reading, row, study.records), *nearest, *others_say]
    notes = [*filter(None, [how]), *_notes(reading, row), *([] if others else [NO_TEMPLATE])]
    return Reconciled(
        reading, study, name_of(row, keys), matching, possibilities, _positions(study.folder, row), notes
    )  # fmt: skip


def golden(file: ForeignFile, folders: Sequence[Path], wanted: Sequence[str]) -> list[Held]:
    """Hold a study against a golden file. Raises `ConfigError`, `ResultsError`."""
    if len(folders) != 1:
        raise file.refuse("is a golden file: it says what a study shows; expected one --study DIR to hold against it")
    if wanted:
        raise ConfigError(f"{wanted[0]}: a golden file names its rows itself; expected no KEY=VALUE with it")
    return held_against(file, read_side(folders[0]).summary)


def _rows(study: StudySide, wanted: Sequence[str], reading: Reading) -> tuple[pd.DataFrame, str]:
    """Rows that match, and how they were chosen where nobody said."""
    rows = chosen_rows(study.summary, wanted, study.folder)
    if len(rows) > 1 and reading.most_drafted is not None and not wanted:
        chains = rows[(rows["tree"].astype(str) == "chain") & (rows["budget"] == reading.most_drafted)]
        if len(chains) == 1:
            return (
                chains,
                f"the file drafts up to {reading.most_drafted} tokens: the study's chain of that length is taken",
            )
    if len(rows) > 1:
        some = " ".join(f"{key}=..." for key in telling(rows) if rows[key].nunique(dropna=False) > 1)
        return (
            rows,
            f"{len(rows)} rows match: say which one is meant ({some}), and what explains a difference is computed",
        )
    return rows, ""


def _nearest(matching: dict[str, list[Possibility]]) -> dict[str, list[Possibility]]:
    def distance(name: str) -> float:
        return min((abs(one.theirs - one.ours.value) for one in matching[name][:1]), default=float("inf"))

    return {name: matching[name] for name in sorted(matching, key=distance)}


def _notes(reading: Reading, row: pd.Series) -> Iterator[str]:
    most = reading.most_drafted
    if most is not None and most != row["depth"]:
        yield f"the file drafts up to {most} tokens deep, this row {row['depth']:g}"


def _positions(folder: Path, row: pd.Series) -> pd.DataFrame | None:
    if not (folder / POSITIONS).exists():
        return None
    table = read_table(folder / POSITIONS)
    own = table[table["combination"] == row["combination"]].reset_index(drop=True)
    return depth_rates(own, pd.Series(float(row["steps"]), index=own.index))
