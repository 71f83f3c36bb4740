"""Tokens and texts so that they do nothing to a terminal."""

from __future__ import annotations

from rich.cells import cell_len

LONGEST_TOKEN = 24


def token_text(token: str, longest: int | None = LONGEST_TOKEN) -> str:
    """A token so that white space and control characters can be seen, cut to `longest` columns of a terminal."""
    shown = repr(token)[1:-1].replace(" ", "\u00b7") if token else "(empty)"
    if longest is None or cell_len(shown) <= longest:
        return shown
    while cell_len(shown) >= longest:
        shown = shown[:-1]
    return shown + "\u2026"
