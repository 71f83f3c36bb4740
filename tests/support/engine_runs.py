"""Engines run on work of their own, here and in another process."""

from __future__ import annotations

import json
import pickle
from collections.abc import Iterable, Sequence
from multiprocessing import get_context
from pathlib import Path
from typing import Any

import torch

from specdraft.drafters.pair import load_pair
from specdraft.results.journal import Row
from specdraft.study.engines.base import Done, Engine, Event, Replayed, Work
from specdraft.study.engines.live import LiveEngine
from specdraft.study.engines.replay import ReplayEngine
from specdraft.study.plan import StudyPlan
from specdraft.traces.store import TraceStore
from support.tiny_models import PairFolders
from support.written import replayed_rows


def study_of(folders: PairFolders, folder: Path, texts: Sequence[str]) -> list[str]:
    """Overrides: a tiny pair on these prompts, which are written into a folder."""
    path = folder / "prompts.jsonl"
    path.write_text("".join(json.dumps({"question_id": str(i), "prompt": p}) + "\n" for i, p in enumerate(texts)))
    pair = [f"pair.{role}.path={where}" for role, where in folders._asdict().items()]
    devices = [f"pair.{role}.device=cpu" for role in ("target", "draft")]
    return [*pair, *devices, "pair.name=tiny", "prompts=jsonl", f"prompts.path={path}"]


def work_of(plan: StudyPlan, engine: str) -> Work:
    """All that one engine has to do for a plan of one pair."""
    ((files, combinations),) = plan.by_pair().items()
    chosen = tuple(combination for combination in combinations if combination.engine == engine)
    settings, repeats = plan.settings, range(plan.settings.repeats)
    prompts = frozenset(prompt.prompt_id for prompt in plan.prompts)
    due = {(combination.identifier, repeat): prompts for combination in chosen for repeat in repeats}
    return Work(files, tuple(plan.prompts), chosen, due, settings.seed, len(repeats), settings.output.steps)


def engine_called(name: str, traces: Path) -> Engine:
    return LiveEngine(TraceStore(traces)) if name == "live" else ReplayEngine(TraceStore(traces))


def rows_of(events: Iterable[Event]) -> list[Row]:
    rows: list[Row] = []
    for event in events:
        if isinstance(event, Done | Replayed):
            rows += event.rows if isinstance(event, Done) else replayed_rows(event.rows)
    return rows


def untimed_rows(events: Iterable[Event]) -> list[dict[str, Any]]:
    """Every number of the rows that is no time, exactly."""
    listed = []
    for row in rows_of(events):
        values = json.loads(row.to_json())
        values["tally"] = {
            name: value for name, value in values["tally"].items() if not name.endswith(("_s", "_spread"))
        }
        listed.append(values)
    return listed


def run_elsewhere(works: dict[str, Work], traces: Path) -> dict[str, list[Event]]:
    """Each engine in its turn in a new process, which gets the pickled work only and loads the pair itself."""
    with get_context("spawn").Pool(1) as pool:
        made = [(name, pool.apply(_events, (pickle.dumps(work), name, traces))) for name, work in works.items()]
    return {name: pickle.loads(events) for name, events in made}


def _events(pickled: bytes, engine: str, traces: Path) -> bytes:
    torch.set_num_threads(1)
    work: Work = pickle.loads(pickled)
    return pickle.dumps(list(engine_called(engine, traces).run(work, load_pair(work.pair))))
