"""A study in other programs' forms, one file a form.

May import: the rest of exchange and below. To add one: a file here with a dataclass that derives from `Export`. An
installed package brings one with an entry point `specdraft.exports`.
"""

from __future__ import annotations

from specdraft.config import kinds_in
from specdraft.exchange.exports.base import Export, Exported, export

__all__ = ["Export", "Exported", "export", "registry"]


def registry() -> dict[str, type[Export]]:
    """`kind` -> the form, found in the files of this folder and among entry points."""
    return kinds_in(__name__, "specdraft.exports")
