"""Every table of a study as Parquet, one file each."""

from __future__ import annotations

from dataclasses import dataclass, fields
from io import BytesIO
from typing import ClassVar

import pandas as pd

from specdraft.exchange.exports.base import Export, Exported
from specdraft.results.study_tables import StudyTables


@dataclass
class Parquet(Export):
    """Typed as `load_study` types them; of chosen rows, the lines of their combinations."""

    kind: ClassVar[str] = "parquet"
    about: ClassVar[str] = "every table, one file each"

    def make(self, study: StudyTables, rows: pd.DataFrame) -> Exported:
        """See `Export`."""
        tables = {f.name: table for f in fields(study) if isinstance(table := getattr(study, f.name), pd.DataFrame)}
        chosen = set(rows["combination"])
        kept = {
            name: table[table["combination"].isin(chosen)] if "combination" in table else table
            for name, table in tables.items()
        }
        return Exported({f"{name}.parquet": _bytes(table) for name, table in kept.items()})


def _bytes(table: pd.DataFrame) -> bytes:
    written = BytesIO()
    table.to_parquet(written, index=False)
    return written.getvalue()
