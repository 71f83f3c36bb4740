"""A study's folder: whether what lies there can be resumed, and what is there already."""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from specdraft.errors import ResultsError
from specdraft.prompts import digest_of_each
from specdraft.results.files import FILES, MANIFEST, write_atomically
from specdraft.results.journal import read_rows
from specdraft.results.locks import LOCK
from specdraft.results.parts import Parts, remove_parts
from specdraft.study.plan import StudyPlan

JOURNAL, PARTS = "journal.jsonl", "parts"
# what `write_atomically` leaves behind when killed
TORN = re.compile(rf"\.({'|'.join(map(re.escape, FILES))}|\d+\.parquet)\.\d+\.tmp")


def open_study(plan: StudyPlan, out: Path, fresh: bool) -> None:
    """Make an existing folder ready: empty, or holding the same study.

    Raises:
        ResultsError: it holds another study or foreign files, or cannot be written.
    """
    for torn in [path for path in (*out.iterdir(), *out.glob(f"{PARTS}/.*")) if TORN.fullmatch(path.name)]:
        torn.unlink(missing_ok=True)
    present = {path.name for path in out.iterdir()} - {LOCK}
    if present:
        _refuse_foreign(out, present, fresh)
    if present and not fresh:
        _refuse_another(plan, out, present)
        return
    for name in present & set(FILES) - {MANIFEST}:
        (out / name).unlink()
    remove_parts(out / PARTS)
    write_manifest(out, {"study": plan.identity, "prompt_digests": digest_of_each(plan.prompts)})


def _refuse_foreign(out: Path, present: set[str], fresh: bool) -> None:
    if MANIFEST not in present:
        raise ResultsError(f"{out}: holds files that are not a study's; choose another --out")
    if "study" not in read_manifest(out, damaged={"study": None} if fresh else None):
        raise ResultsError(f"{out}: holds a manifest.json that is not a study's; choose another --out")


def _refuse_another(plan: StudyPlan, out: Path, present: set[str]) -> None:
    if differing := _differing(plan, read_manifest(out)):
        raise ResultsError(f"{out}: holds another study {differing}; choose another --out, or start over with --fresh")
    if JOURNAL not in present and "summary.csv" in present:
        raise ResultsError(
            f"{out}: its journal.jsonl is gone, so it cannot be resumed; choose another --out, or start over "
            "with --fresh"
        )


def _differing(plan: StudyPlan, manifest: Mapping[str, Any]) -> str:
    """What keeps a plan from being the study of a manifest: nothing where it only has more prompts."""
    study = manifest.get("study")
    there = study if isinstance(study, dict) else {}
    names = [key for key, value in plan.identity.items() if there.get(key) != value]
    before, gone = manifest.get("prompt_digests"), ""
    if "prompts" in names and isinstance(before, dict):
        now = digest_of_each(plan.prompts)
        lost = next((prompt_id for prompt_id, digest in before.items() if now.get(prompt_id) != digest), None)
        if lost is None:
            names.remove("prompts")
        else:
            gone = f": its prompt {lost!r} is not among these as it was, and prompts may only be added"
    return f"({', '.join(names)} differ){gone}" if names else ""


def read_manifest(out: Path, damaged: dict[str, Any] | None = None) -> dict[str, Any]:
    """A folder's manifest; `damaged` in place of one that cannot be read, if given. Raises `ResultsError`."""
    try:
        manifest = json.loads((out / MANIFEST).read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        if damaged is not None:
            return damaged
        raise ResultsError(
            f"{out}/manifest.json: cannot be read; choose another --out, or start over with --fresh"
        ) from error
    return manifest if isinstance(manifest, dict) else {}


def write_manifest(out: Path, manifest: Mapping[str, Any]) -> None:
    """Write a folder's manifest. Raises `ResultsError`."""
    write_atomically(out / MANIFEST, json.dumps(manifest, indent=1) + "\n")


def rows_there(plan: StudyPlan, out: Path) -> dict[str, int]:
    """Combination -> rows that a sweep into `out` would reuse. Reads only."""
    counts = {c.identifier: 0 for c in plan.combinations}
    if not (out / JOURNAL).is_file() or _differing(plan, read_manifest(out)):
        return counts
    weights = {c.identifier: c.weights for c in plan.combinations}
    for row in read_rows(out / JOURNAL):
        if weights.get(row.combination) == row.weights:
            counts[row.combination] += 1
    parts = Parts(out / PARTS)
    for key in parts:
        if weights.get(key[0]) == key[1]:
            counts[key[0]] += sum(len(stored.prompt_ids) for stored in parts.of(key))
    return counts
