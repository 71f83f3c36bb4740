"""What a study showed, for a later one to be held against (`exchange.golden`)."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

import pandas as pd

from specdraft.exchange.exports.base import Export, Exported
from specdraft.exchange.golden import golden_text
from specdraft.results.study_tables import StudyTables


@dataclass
class GoldenYaml(Export):
    """One file: each row's ratios with their intervals."""

    kind: ClassVar[str] = "golden-yaml"
    about: ClassVar[str] = "each row's ratios and intervals, for `specdraft reconcile FILE --study DIR` to check"

    def make(self, study: StudyTables, rows: pd.DataFrame) -> Exported:
        """See `Export`."""
        return Exported({"golden.yaml": golden_text(rows)})
