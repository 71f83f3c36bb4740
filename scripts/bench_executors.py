#!/usr/bin/env python
"""What one process that feeds workers pays for a row, and what a second worker is worth.

    python scripts/bench_executors.py [--prompts 40] [--out results/executors/bench.json]

Replay of a grid of trees, and live decoding of a few, on the bundled `zoo-tiny`: by one worker, then by two, with
traces and folders of their own. The driver's processor time is its own (`time.process_time`), without the tables at the
end; a worker's units are on the wall clock. How many workers the driver can feed is the time that a worker takes for a
row over the time that the driver does.
"""

from __future__ import annotations

import argparse
import json
import os
import tempfile
import time
from pathlib import Path
from typing import Any

from specdraft.drafters.on_demand import PairOnDemand
from specdraft.results.files import write_atomically
from specdraft.results.manifest import cpu_name
from specdraft.study.executors.driver import Driver
from specdraft.study.executors.processes import ProcessCrew
from specdraft.study.executors.worker import Threads
from specdraft.study.folder import open_study
from specdraft.study.ledger import Ledger
from specdraft.study.plan import StudyPlan, plan_study
from specdraft.study.progress import Progress
from specdraft.traces.memory import StoredMemory
from specdraft.traces.store import TraceStore

TREES = "tree=chain,kary,branching,beam,wide,sequoia,measured"
STUDIES = {
    "replay": [TREES, "budget=range(1,65)", "max_new_tokens=32,48,64", "cost.measure=off"],
    "live": ["tree=chain,kary", "budget=2,4,8", "engine=live"],
}
H100_8B = {"live_row_s": 0.16}  # 64 tokens in 26 steps of 6 ms: 16 GB of weights at 3.35 TB/s, and a quarter more


def run(plan: StudyPlan, engine: str, workers: int, root: Path) -> dict[str, float]:
    """Seconds of one run: on the wall clock from the first unit on, and of the driver's processor time."""
    store, out = TraceStore(root / "traces"), root / "out"
    out.mkdir(parents=True)
    open_study(plan, out, fresh=True)
    ledger, crew = Ledger(plan, out, Progress()), ProcessCrew(workers, store.folder, Threads(1, 1))
    driver = Driver(crew, Progress())
    ((files, combinations),) = plan.by_pair().items()
    pair = PairOnDemand(files, StoredMemory(store))
    ledger.rows.add_combinations(combinations)
    try:
        driver.ready(pair, live=False)
        began, used = time.perf_counter(), time.process_time()
        for event in driver.run(engine, ledger.rows.work(files, combinations), pair):
            ledger.take(event)
        return {"wall_s": time.perf_counter() - began, "driver_s": time.process_time() - used, "rows": ledger.rows.done}
    finally:
        crew.close()


def main() -> None:
    """Runs, prints and writes."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--prompts", type=int, default=40)
    parser.add_argument("--out", type=Path, default=Path("results/executors/bench.json"))
    given = parser.parse_args()
    found: dict[str, Any] = {"device": cpu_name(), "cores": os.cpu_count(), "prompts": given.prompts}
    for engine, asked in STUDIES.items():
        common = ["name=bench", "pair=zoo-tiny", f"prompts.limit={given.prompts}", "report=false", *asked]
        plan = plan_study(common)
        runs = {}
        for workers in (1, 2):
            with tempfile.TemporaryDirectory() as root:
                runs[workers] = run(plan, engine, workers, Path(root))
        one, two = runs[1], runs[2]
        row_s = one["driver_s"] / one["rows"]
        found[engine] = {
            "rows": one["rows"], "one_worker_s": one["wall_s"], "two_workers_s": two["wall_s"],
            "efficiency": one["wall_s"] / two["wall_s"] / 2, "driver_s_per_row": row_s,
            "rows_per_s_fed": 1 / row_s, "workers_fed_here": one["wall_s"] / one["driver_s"],
        }  # fmt: skip
        walls = f"one worker {one['wall_s']:.1f} s, two {two['wall_s']:.1f} s"
        efficiency = f"efficiency {found[engine]['efficiency']:.2f}"
        print(f"{engine}: {one['rows']:.0f} rows; {walls}: {efficiency}; driver {row_s * 1e6:.0f} us a row", flush=True)
    fed = H100_8B["live_row_s"] / found["live"]["driver_s_per_row"]
    found["gpus_fed_live_8b"] = fed
    row_s = H100_8B["live_row_s"]
    print(f"live rows of an 8B model on an H100 take about {row_s} s: the driver feeds {fed:,.0f} such GPUs")
    write_atomically(given.out, json.dumps(found, indent=1) + "\n")


if __name__ == "__main__":
    main()
