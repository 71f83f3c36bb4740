"""How far a study is, in a terminal."""

from __future__ import annotations

from collections.abc import Iterator

from rich.box import SIMPLE_HEAD
from rich.table import Table
from rich.text import Text

from specdraft.errors import plain_text
from specdraft.study.status import KILLED, MEANINGS, RUNNING, StudyStatus
from specdraft.viewer.progress import clock

MOST_FAILURES = 10
STYLES = {RUNNING: "green", KILLED: "red"}


def status_parts(status: StudyStatus) -> Iterator[Text | Table]:
    """The state, rows, stages and failures."""
    yield Text.assemble(
        plain_text(f"{status.study} ({status.folder}): "),
        (status.state, STYLES.get(status.state, "")),
        f", {MEANINGS[status.state]}",
    )
    if status.rows is not None:
        yield Text(_about_rows(status))
    if status.elapsed_s is not None:
        yield Text(_about_time(status))
    if status.stages:
        yield _stages(status)
    if status.workers:
        lines = [f"workers: {len(status.workers)}", *(f"  {name}: {doing}" for name, doing in status.workers.items())]
        yield Text(plain_text("\n".join(lines)))
    if status.failed:
        shown = [f"  {failure['what']}: {failure['error']}" for failure in status.failures[:MOST_FAILURES]]
        more = status.failed - len(shown)
        lines = [f"failed: {status.failed}", *shown, *([f"  and {more} more"] if more > 0 else [])]
        yield Text(plain_text("\n".join(lines)), style="red")


def _about_rows(status: StudyStatus) -> str:
    assert status.rows is not None
    there = status.rows["reused"] + status.rows["done"]
    parts = [f"rows: {there:,} of {status.rows['due']:,}"]
    parts += [f"{status.rows['reused']:,} of them reused"] if status.rows["reused"] else []
    parts += [f"{status.rows['given_up']:,} given up"] if status.rows["given_up"] else []
    parts += [f"{status.rows_left:,} to do"] if status.rows_left else []
    return ", ".join(parts)


def _about_time(status: StudyStatus) -> str:
    assert status.elapsed_s is not None and status.noted_s is not None
    parts = [f"process {status.pid}, for {clock(status.elapsed_s)}"]
    parts += [f"{status.rows_per_s:,.1f} rows a second"] if status.rows_per_s else []
    if status.state == RUNNING:
        parts.append("time left not known yet" if status.left_s is None else f"about {clock(status.left_s)} left")
    return ", ".join([*parts, f"noted {clock(status.noted_s)} ago"])


def _stages(status: StudyStatus) -> Table:
    table = Table(box=SIMPLE_HEAD, padding=(0, 1, 0, 0), pad_edge=False)
    for name in ("pair", "stage"):
        table.add_column(name, overflow="fold")
    for name in ("done", "of", "time"):
        table.add_column(name, justify="right")
    table.add_column("")
    for stage in status.stages:
        done, due = (f"{stage[name]:,.0f}" for name in ("done", "due"))
        style = "bold" if stage["state"] == "now" else "dim" if stage["state"] == "to come" else ""
        cells = (stage["pair"], stage["name"], done, f"{due} {stage['unit']}", clock(stage["spent_s"]), stage["state"])
        table.add_row(*map(plain_text, cells), style=style)
    return table
