"""Write the course report of a study: a paper with its figures, in English or Chinese, from the result files.

    python scripts/course_report.py results/course-report language=zh

See `specdraft.report.course`.
"""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from specdraft.errors import ConfigError, UserError
from specdraft.report.course.catalogue import catalogue
from specdraft.report.course.paper import compose, read_course
from specdraft.report.course.writing import write_paper

KEY = "language="


def main(
    folder: Annotated[Path, typer.Argument(help="a results folder")] = Path("results/course-report"),
    language: Annotated[str, typer.Argument(help="language=en or language=zh")] = "language=en",
) -> None:
    try:
        if not language.startswith(KEY):
            raise ConfigError(f"{language!r} is not known; expected language=en or language=zh")
        paper = compose(read_course(folder, catalogue(language.removeprefix(KEY))))
        written = write_paper(paper, folder)
    except UserError as error:
        typer.echo(f"error: {error}", err=True)
        raise typer.Exit(2) from error
    for path in written:
        typer.echo(f"{path}: written")


if __name__ == "__main__":
    typer.run(main)
