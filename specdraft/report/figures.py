"""The figures, each with a caption that says what is to be seen and is computed from what is drawn."""

from __future__ import annotations

from specdraft.report.canvas import Drawn
from specdraft.report.findings import Findings
from specdraft.report.inside_figures import InsideFigures
from specdraft.report.setting_figures import SettingFigures
from specdraft.report.time_figures import TimeFigures


class Artist(TimeFigures, InsideFigures, SettingFigures):
    """Draws a study."""

    def draw(self) -> Drawn:
        """Every figure, in the report's order."""
        if self.rows.empty:
            return self.drawn
        single = self.rows["budget"].nunique() == 1
        self._metric(
            "block_efficiency",
            "Tokens per pass of the target, by node budget",
            self._leads_caption(),
            plain=True,
            single=single,
        )
        self._winners()
        self._metric(
            "acceptance_length",
            "Accepted draft tokens per step, by node budget",
            self._growth_caption("acceptance_length"),
            single=single,
        )
        self._metric(
            "acceptance_rate",
            "Share of draft tokens that are accepted, by node budget",
            self._growth_caption("acceptance_rate"),
            single=single,
        )
        self._heat()
        self._depth()
        self._ranks()
        self._lengths()
        self._settings()
        self._theory()
        self._live()
        self._estimate(single)
        return self.drawn


def draw(findings: Findings) -> Drawn:
    """Every figure of a study."""
    return Artist(findings).draw()
