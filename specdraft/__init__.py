"""Measure which draft tree gets how many tokens accepted in speculative decoding."""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    __version__: str

    from specdraft.drafters.pair import load_pair
    from specdraft.results.study_tables import StudyTables, load_study
    from specdraft.study.generate import Generation, SpeculativeDecoder
    from specdraft.study.simulate import Simulator, simulate
    from specdraft.trees.draft_tree import DraftTree

__all__ = [
    "DraftTree",
    "Generation",
    "Simulator",
    "SpeculativeDecoder",
    "StudyTables",
    "__version__",
    "load_pair",
    "load_study",
    "simulate",
]

HOMES = {  # public name -> its module
    "DraftTree": "specdraft.trees.draft_tree",
    "Generation": "specdraft.study.generate",
    "Simulator": "specdraft.study.simulate",
    "SpeculativeDecoder": "specdraft.study.generate",
    "StudyTables": "specdraft.results.study_tables",
    "load_pair": "specdraft.drafters.pair",
    "load_study": "specdraft.results.study_tables",
    "simulate": "specdraft.study.simulate",
}


def __getattr__(name: str) -> Any:
    """Import a public name's module, and read the version, only when they are asked for."""
    if name == "__version__":
        return _version()
    if name not in HOMES:
        raise AttributeError(f"module 'specdraft' has no attribute {name!r}")
    return getattr(import_module(HOMES[name]), name)


def _version() -> str:
    from importlib.metadata import PackageNotFoundError, version

    try:
        return version("specdraft")
    except PackageNotFoundError:  # running from a source tree that is not installed
        return "0+unknown"
