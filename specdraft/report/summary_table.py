"""The table of all combinations: equal trees share a row."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
import pandas as pd

from specdraft.report.study_files import StudyFiles, visible
from specdraft.report.table import Table, three_digits
from specdraft.report.words import say
from specdraft.results.metrics import COUNTS, LATENCIES, TIMES
from specdraft.results.summary import RATIOS_WITH_ENDS

ESTIMATES = ("est_tokens_per_s", "est_speedup")
BRIEF = ("tree", "budget", "block_efficiency", "block_efficiency_lo", "block_efficiency_hi", "acceptance_length",
         "acceptance_rate", "speedup", "est_speedup")  # fmt: skip
NAMES = {"tree": " = ", "combination": ", "}  # what equal trees differ in, and what stands between them
NODES = "nodes.csv"


def summary_table(study: StudyFiles) -> Table:
    """All combinations, with the columns that hold anything."""
    written = study.written
    counted = (*COUNTS, *RATIOS_WITH_ENDS, *TIMES, *LATENCIES)
    wanted = ["pair", *study.varying, "tree", "budget", "nodes", "depth", *counted, "combination"]
    columns = [name for name in dict.fromkeys(wanted) if name in written and (written[name] != "").any()]
    merged = _merged(study)
    estimates = " Columns that begin with est_ are estimates." if set(columns) & set(ESTIMATES) else ""
    shared = " Shapes that are the same tree at a budget share a row." if len(merged) < len(written) else ""
    note = say("summary.csv has the numbers with all their digits.{}{}", shared, estimates)
    brief = tuple(name for name in ("pair", *study.varying, *BRIEF) if name in columns)
    listed = merged[columns].itertuples(index=False, name=None)
    rows = [tuple(three_digits(visible(text)) for text in row) for row in listed]
    return Table("summary", "All combinations", tuple(columns), rows, note, brief, columns.index("budget") + 1)


def _merged(study: StudyFiles) -> pd.DataFrame:
    """The summary as it is written, rows of equal trees as one that names all: they have the same nodes, reached and
    accepted as often, and the same in every other column. Without `nodes.csv` nothing says which trees are equal."""
    written, trees = study.written, _trees(study)
    others = [name for name in written if name not in NAMES]
    alike = written.assign(nodes_there=written["combination"].map(trees)).groupby([*others, "nodes_there"], sort=False)
    said = {name: written[name].tolist() for name in NAMES}
    kept = np.ones(len(written), dtype=bool)
    for first, *rest in alike.indices.values():
        for name, between in NAMES.items() if rest else ():
            said[name][first] = between.join(dict.fromkeys(said[name][place] for place in (first, *rest)))
        kept[rest] = False
    return written.assign(**said)[kept].reset_index(drop=True)


def _trees(study: StudyFiles) -> dict[str, str]:
    """Combination -> its nodes with their counts, as one text."""
    nodes = study.details.get(NODES)
    return {} if nodes is None else dict(_as_texts(nodes))


def _as_texts(nodes: pd.DataFrame) -> Iterator[tuple[str, str]]:
    ordered = nodes.sort_values(["combination", "rank_path"])
    counted = ordered["rank_path"] + ":" + ordered["reached"].astype(str) + ":" + ordered["accepted"].astype(str)
    for name, said in counted.groupby(ordered["combination"]):
        yield str(name), " ".join(said)
