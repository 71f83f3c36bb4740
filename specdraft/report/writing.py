"""Write a report: which files, where, and whether that can be."""

from __future__ import annotations

import os
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any
from urllib.parse import quote

from specdraft.errors import ConfigError, did_you_mean
from specdraft.report.document import Document, compose
from specdraft.report.markdown import markdown_page
from specdraft.report.page import columnar, html_page
from specdraft.report.study_files import read_study
from specdraft.results.files import check_file_writable, check_folder_writable, write_atomically

if TYPE_CHECKING:
    from specdraft.study.combination import Combination

FORMATS = ("html", "md", "png")
PICTURES = "figures"
SCALE = 1.35  # pixels of a picture for each pixel of the page


def parse_formats(text: str | None, out: Path | None = None) -> tuple[str, ...]:
    """`html,md` -> its parts; without a text all, or what `out` ends in. Raises `ConfigError` for others than html,
    md and png."""
    if text is None:
        ending = out.suffix.lower().lstrip(".") if out else ""
        return FORMATS if out is None else (ending if ending in FORMATS[:2] else FORMATS[0],)
    parts = tuple(dict.fromkeys(part.strip().lower() for part in text.split(",") if part.strip()))
    for part in parts or ("",):
        if part not in FORMATS:
            raise ConfigError(f"--format {part!r} is not known{did_you_mean(part, FORMATS)}")
    return parts


def write_report(
    folder: Path,
    out: Path | None = None,
    formats: Sequence[str] = FORMATS,
    planned: Sequence[Combination] = (),
    steps: bool = True,
) -> list[Path]:
    """Write a study's report and return the files.

    Args:
        folder: the results folder; pictures go to its `figures/`.
        out: the page's file; `folder/report.html` if not given. A second page stands beside it with its own ending.
        formats: of `html`, `md` and `png`.
        planned: the study's combinations, where they are at hand.
        steps: whether the page leads to the steps of some prompts, which takes models and traces.

    Raises:
        ResultsError: the folder holds no results, or a file cannot be written.
        ConfigError: `out` has an ending that is none of the formats.
    """
    pages = _pages(folder, out, formats)
    study = read_study(folder)
    for path in pages.values():
        check_file_writable(path)
    pictures = _pictures_folder(folder, formats)
    document = compose(study, drilled=steps and "html" in pages, planned=planned)
    written = []
    if pictures is not None:
        written += _write_pictures(document, pictures)
    if "html" in pages:
        write_atomically(pages["html"], html_page(document))
    if "md" in pages:
        write_atomically(
            pages["md"],
            markdown_page(document, lambda name: _picture_from(pages["md"], folder / PICTURES / f"{name}.png")),
        )
    return [*pages.values(), *written]


def _pages(folder: Path, out: Path | None, formats: Sequence[str]) -> dict[str, Path]:
    wanted = [name for name in ("html", "md") if name in formats]
    if out is None:
        return {name: folder / f"report.{name}" for name in wanted}
    ending = out.suffix.lower().lstrip(".")
    if not wanted:
        raise ConfigError(f"--out {out}: pictures go to {folder / PICTURES}; --out is for --format html or md")
    if ending not in FORMATS[:2] and not out.is_dir():
        raise ConfigError(f"--out {out}: expected a file that ends in .html or .md")
    if ending in FORMATS[:2] and ending not in wanted:
        raise ConfigError(f"--out {out}: its ending does not fit --format {','.join(formats)}")
    return {name: out if name == ending or len(wanted) == 1 else out.with_suffix(f".{name}") for name in wanted}


def _pictures_folder(folder: Path, formats: Sequence[str]) -> Path | None:
    if "png" not in formats:
        return None
    pictures = folder / PICTURES
    check_folder_writable(pictures)
    return pictures


def _write_pictures(document: Document, folder: Path) -> list[Path]:
    import vl_convert

    written = []
    for figure in document.drawn.figures:
        if figure.spec is None:
            continue
        spec: dict[str, Any] = figure.spec | {"background": "white", "datasets": _rows(document, figure.spec)}
        path = folder / f"{figure.name}.png"
        write_atomically(path, vl_convert.vegalite_to_png(spec, scale=SCALE))
        written.append(path)
    return written


def _rows(document: Document, spec: dict[str, Any]) -> dict[str, list[dict[str, Any]]]:
    """The tables that a figure names, row by row."""
    tables = {}
    for name in _named(spec):
        columns = columnar(document.drawn.datasets[name])
        tables[name] = [dict(zip(columns, values, strict=True)) for values in zip(*columns.values(), strict=True)]
    return tables


def _named(part: Any) -> set[str]:
    if isinstance(part, list):
        return set().union(*map(_named, part)) if part else set()
    if not isinstance(part, dict):
        return set()
    named = {part["data"]["name"]} if isinstance(part.get("data"), dict) and "name" in part["data"] else set()
    return named.union(*(_named(inner) for key, inner in part.items() if key != "config"))


def _picture_from(page: Path, picture: Path) -> str | None:
    """Where a picture is, seen from a page; None where there is none."""
    if not picture.is_file():
        return None
    try:
        return quote(os.path.relpath(picture.resolve(), page.resolve().parent).replace(os.sep, "/"))
    except ValueError:  # another drive
        return None
