"""What the command line said."""

from __future__ import annotations

from collections.abc import Callable
from typing import NamedTuple

from specdraft.commands.options import USAGE


class Said(NamedTuple):
    code: int
    out: str
    err: str


Run = Callable[..., Said]


def one_line(said: Said, code: int = USAGE) -> str:
    assert (said.code, said.out) == (code, ""), said
    (line,) = said.err.splitlines()
    return line
