"""What is known of a study once its files are read: the rows that count, who leads, what was timed."""

from __future__ import annotations

from dataclasses import dataclass

import pandas as pd

from specdraft.prediction.length.oracle import Oracle
from specdraft.report.cross_fit import Halves, halves_of
from specdraft.report.leads import Differences, Lead, headlines, leads, read_differences
from specdraft.report.study_files import StudyFiles
from specdraft.results.comparisons import competing_budgets
from specdraft.trees.shapes import is_reference


@dataclass(frozen=True)
class Findings:
    """What the answer, its confidence, the figures and the tables are made from.

    Attributes:
        rows: the summary's rows that took a step; `competes` is the budget that each is compared at.
        differences: paired differences of trees (see `leads.difference`).
        leads: of every panel and budget.
        headlines: panel -> the lead that is spoken of first.
        halves: the prompts' own numbers; None where there are none: what is best is then picked and measured on the
            same prompts.
    """

    study: StudyFiles
    rows: pd.DataFrame
    differences: Differences
    leads: list[Lead]
    headlines: dict[str, Lead]
    halves: Halves | None

    @property
    def prompts(self) -> int | None:
        """How many prompts, as the manifest says."""
        count = self.study.about("prompts")
        return count if isinstance(count, int) else None

    @property
    def live(self) -> pd.DataFrame:
        """Rows with measured times."""
        return self.rows[self.rows["wall_s"].notna()]

    @property
    def decoded_live(self) -> pd.Series[bool]:
        """Whether each row was decoded live: by its engine, in a file without one by its times."""
        return self.rows["engine"] == "live" if "engine" in self.rows else self.rows["wall_s"].notna()

    @property
    def estimated(self) -> pd.DataFrame:
        """Rows with estimated times."""
        return self.rows[self.rows["est_speedup"].notna()]


def findings_of(study: StudyFiles) -> Findings:
    """Read what a study's files say."""
    rows = study.summary[study.summary["block_efficiency"].notna()]
    rows = rows.assign(competes=competing_budgets(rows, ["panel"]))
    differences = read_differences(study)
    halves = halves_of(study.folder)
    study_leads = leads(rows, study.panels, differences, halves)
    return Findings(study, rows, differences, study_leads, headlines(study_leads), halves)


def fair(rows: pd.DataFrame) -> pd.DataFrame:
    """The rows whose shape may win: all but the references, and chains whose length knows the text."""
    reference = rows["tree"].map(is_reference).astype(bool)
    return rows[~(reference | (rows["length"] == Oracle.kind) if "length" in rows else reference)]
