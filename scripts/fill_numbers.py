"""Fill the numbers of Markdown files in from the studies under `results/`, or say which are stale.

A table stands between `<!-- NAME -->` and `<!-- /NAME -->`, on lines of their own: see `number_tables.py`. A number in
a sentence stands between `<!-- n:FILE KEY=VALUE... COLUMN -->` and `<!-- /n -->`: FILE is below `results/` (of a folder
its `summary.csv`), the keys leave one row of it, and the column is shown with its 95 % interval where the file has one.
`COLUMN:.3f` has other digits, `=COLUMN` no interval, `-COLUMN` its sign turned; of a JSON file COLUMN is a key, whose
value is a number or one with its interval.

python scripts/fill_numbers.py [--check] [FILES]...
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from math import isnan, nan
from pathlib import Path
from typing import Annotated

import pandas as pd
import typer
from number_tables import TABLES, StaleError, one

from specdraft.results.intervals import Interval

ROOT = Path(__file__).resolve().parent.parent
MARKED = re.compile(r"<!-- ([\w-]+) -->\n.*?<!-- /\1 -->", re.DOTALL)
ALONE = re.compile(r"<!-- (?:/?[\w-]+|n:.*?) -->")
INLINE = re.compile(r"<!-- n:(.*?) -->(.*?)<!-- /n -->", re.DOTALL)


def number(expression: str, results: Path) -> str:
    """What an inline marker stands for. Raises `StaleError`."""
    where, *keys, column = expression.split()
    name, _, spec = column.lstrip("-=").partition(":")
    path = results / where
    path = path / "summary.csv" if path.is_dir() else path
    if not path.is_file():
        raise StaleError(f"{where}: there is no such file below results/")
    if path.suffix == ".json":
        found = json.loads(path.read_text(encoding="utf-8"))[name]
        value, low, high = found.values() if isinstance(found, dict) else (found, nan, nan)
    else:
        row = one(pd.read_csv(path), **dict(key.split("=", 1) for key in keys))
        value, low, high = (float(row.get(f"{name}{end}", nan)) for end in ("", "_lo", "_hi"))
    if isnan(value):
        raise StaleError(f"{expression}: there is no value")
    if column.startswith("-"):
        value, low, high = -value, -high, -low
    return format(value if column.startswith("=") else Interval(value, low, high), spec or ".2f")


def filled(text: str, results: Path) -> str:
    """A Markdown text with its numbers as the studies have them. Raises `StaleError` for a marker that is not known, or
    has no end."""

    def of_table(found: re.Match[str]) -> str:
        if found[1] not in TABLES:
            raise StaleError(f"{found[1]!r} is no table (known: {', '.join(TABLES)})")
        try:
            made = TABLES[found[1]](results)
        except (OSError, KeyError) as error:
            raise StaleError(f"{found[1]}: what it is made from is not there: {error}") from error
        return f"<!-- {found[1]} -->\n{made}\n<!-- /{found[1]} -->"

    if alone := ALONE.search(MARKED.sub("", INLINE.sub("", text))):
        raise StaleError(f"{alone[0]} has no other end")
    text = MARKED.sub(of_table, text)
    return INLINE.sub(lambda found: f"<!-- n:{found[1]} -->{number(found[1], results)}<!-- /n -->", text)


def marked_files() -> Iterator[Path]:
    """Where numbers may stand."""
    yield ROOT / "README.md"
    for pattern in ("results/**/*.md", "specdraft/help/*.md"):
        yield from (path for path in sorted(ROOT.glob(pattern)) if path.name != "report.md")


def main(
    files: Annotated[list[Path] | None, typer.Argument(help="default: README.md, results/, specdraft/help/")] = None,
    check: Annotated[bool, typer.Option("--check", help="write nothing; exit code 1 where a number is stale")] = False,
) -> None:
    stale = False
    for path in files or list(marked_files()):
        text = path.read_text(encoding="utf-8")
        try:
            new = filled(text, ROOT / "results")
        except StaleError as error:
            typer.echo(f"{path}: {error}", err=True)
            stale = True
            continue
        if new == text:
            continue
        stale = True
        for before, after in zip(text.splitlines(), new.splitlines(), strict=False):
            if before != after:
                typer.echo(f"{path}:\n- {before}\n+ {after}", err=True)
        if not check:
            path.write_text(new, encoding="utf-8")
    if check and stale:
        typer.echo("stale; python scripts/fill_numbers.py writes them anew", err=True)
        raise typer.Exit(1)


if __name__ == "__main__":
    typer.run(main)
