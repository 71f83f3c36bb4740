"""`specdraft export`: a study in other programs' forms."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Annotated

import typer

from specdraft.commands.options import AsJson, console, say


def export(
    study: Annotated[Path, typer.Argument(metavar="DIR", help="a results folder")],
    wanted: Annotated[
        list[str] | None,
        typer.Argument(metavar="[KEY=VALUE]...", help="some rows: tree=chain budget=4,8", show_default=False),
    ] = None,
    form: Annotated[str, typer.Option("--format", help="spec-bench, vllm, golden-yaml or parquet")] = "parquet",
    out: Annotated[
        Path | None, typer.Option("--out", help="a folder, or the file where there is one; default: results/DIR-FORMAT")
    ] = None,
    as_json: AsJson = False,
) -> None:
    """Write a study as Spec-Bench's answers, vLLM's records, a golden file for checks, or Parquet."""
    from specdraft.errors import ConfigError, did_you_mean
    from specdraft.exchange.exports import export as export_study
    from specdraft.exchange.exports import registry
    from specdraft.results.files import check_file_writable, check_folder_writable, write_atomically
    from specdraft.results.study_tables import load_study

    if form not in (known := registry()):
        raise ConfigError(f"--format {form!r} is not known{did_you_mean(form, known)}")
    made = export_study(known[form](), load_study(study), wanted or [])
    if out is not None and out.resolve() == study.resolve():
        raise ConfigError(f"--out {out} is the study's own folder; expected another one")
    folder = out or Path("results") / f"{study.resolve().name}-{form}"
    (only, *others) = made.files
    one_file = out is not None and out.suffix == Path(only).suffix
    if one_file and others:
        raise ConfigError(f"--out {out} is named as a file; expected a folder for {len(made.files)} files")
    if out is not None and one_file:
        check_file_writable(out, "--out")
        places = {out: made.files[only]}
    else:
        check_folder_writable(folder)
        places = {folder / name: content for name, content in made.files.items()}
    for path, content in places.items():
        write_atomically(path, content)
    for note in made.notes:
        say(f"note: {note}")
    if as_json:
        typer.echo(json.dumps({"format": form, "files": [str(path) for path in places], "notes": made.notes}))
        return
    for path in places:
        console().print(str(path), markup=False, highlight=False, soft_wrap=True)
