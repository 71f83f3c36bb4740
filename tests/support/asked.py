"""Overrides of small studies."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from pathlib import Path

from support.tiny_models import PairFolders

TALES_AND_CODE = [  # two of each category, so that each half has both
    {"question_id": name, "category": category, "prompt": text}
    for name, category, text in (
        ("a", "story", "Once upon a time"),
        ("b", "story", "It was"),
        ("c", "code", "def f(x):"),
        ("d", "code", "x ="),
    )
]


def prompts_of(folder: Path, rows: Sequence[Mapping[str, str]] = TALES_AND_CODE) -> list[str]:
    """These prompts, as a file in the folder."""
    path = folder / "prompts.jsonl"
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    return ["prompts=jsonl", f"prompts.path={path}"]


def tiny_pair_of(folders: PairFolders) -> list[str]:
    """The tiny pair by its folders."""
    return [f"pair.target.path={folders.target}", f"pair.draft.path={folders.draft}", "pair.name=tiny"]
