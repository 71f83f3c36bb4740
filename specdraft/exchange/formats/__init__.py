"""What other engines and benchmarks print, one file a format.

May import: the rest of exchange and below. To add one: a file here with a dataclass that derives from `Format`; its
docstring names where the format is defined. An installed package brings one with an entry point `specdraft.formats`.
"""

from __future__ import annotations

from specdraft.config import kinds_in
from specdraft.exchange.formats.base import Format
from specdraft.exchange.reading import Reading, check
from specdraft.exchange.source import ForeignFile

__all__ = ["Format", "read", "registry"]


def registry() -> dict[str, type[Format]]:
    """`kind` -> the format, found in the files of this folder and among entry points."""
    return kinds_in(__name__, "specdraft.formats")


def read(file: ForeignFile) -> Reading:
    """Recognise a file by its content, and read it.

    Raises:
        ConfigError: it is of no known kind, or of several, or what it says contradicts itself.
    """
    kinds = registry()
    found = [kind for kind, made in kinds.items() if made().recognises(file)]
    if not found:
        known = "; ".join(f"{made.about} ({kind})" for kind, made in kinds.items())
        raise file.refuse(f"holds no figures of speculative decoding that are known here; expected one of: {known}")
    if len(found) > 1:
        raise file.refuse(f"looks like {' and '.join(found)} at once; expected the figures of one program")
    return check(kinds[found[0]]().read(file), file.path)
