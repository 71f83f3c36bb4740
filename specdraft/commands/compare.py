"""`specdraft compare`: two studies side by side."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Annotated

import typer

from specdraft.commands.options import AsJson, console


def compare(
    study_a: Annotated[Path, typer.Argument(metavar="STUDY_A", help="a results folder: before")],
    study_b: Annotated[Path, typer.Argument(metavar="STUDY_B", help="another one: after")],
    out: Annotated[
        Path | None, typer.Option("--out", help="where comparison.html and comparison.csv go; default: results/A-B")
    ] = None,
    across: Annotated[
        str, typer.Option("--across", metavar="KEYS", help="key columns that may differ: seed,dtype,engine")
    ] = "",
    as_json: AsJson = False,
) -> None:
    """What changed from one study to another.

    Each combination is better, worse, within noise, new or gone; a page and a table say it of all.
    """
    from specdraft.report.comparison import write_comparison
    from specdraft.results.manifest_differences import differing
    from specdraft.results.side_by_side import side_by_side
    from specdraft.results.study_side import read_side, refuse_twice, tell_apart
    from specdraft.viewer.comparison_tables import comparison_parts

    refuse_twice([study_a, study_b])
    a, b = read_side(study_a), read_side(study_b)
    found = side_by_side(a, b, [key.strip() for key in across.split(",") if key.strip()])
    names, differs = tell_apart([(side.name, side.folder) for side in (a, b)]), differing(a, b)
    folder = out or Path("results") / "-".join(name.replace("/", "-") for name in names)
    written = write_comparison(found, (names[0], names[1]), differs, folder)
    if as_json:
        metrics = list(dict.fromkeys(found.rows["metric"]))
        typer.echo(
            json.dumps(
                {
                    "a": str(study_a),
                    "b": str(study_b),
                    "common": found.common,
                    "shared_prompts": found.shared,
                    "counts": {metric: found.counts(metric) for metric in metrics},
                    "by_chance": {metric: found.by_chance(metric) for metric in metrics},
                    "differing": [one._asdict() for one in differs],
                    "notes": found.notes,
                    "written": list(map(str, written)),
                    "rows": json.loads(found.rows.to_json(orient="records")),
                }
            )
        )
        return
    for part in comparison_parts(found, (names[0], names[1]), differs):
        console().print(part, soft_wrap=not hasattr(part, "columns"))
    for path in written:
        console().print(str(path), markup=False, highlight=False, soft_wrap=True)
