"""What replay is worth: recording, replaying 200 trees at 5 budgets, and live decoding of the same, measured in one
run.

    python scripts/bench_replay.py [--pair zoo] [--shapes 200] [--live-prompts 8] [--new-tokens 64] [--out FILE.json]

The trees are random and seeded. Each grows node by node; its first 4, 8, 16, 32 and 64 nodes are five combinations. A
parent is drawn evenly from the nodes there are. In every second tree the new child has the lowest free rank (the tree
is sibling-closed), in the others a free rank below 8 drawn evenly, as far as there is one.

Live decoding is timed on ten of these combinations (two per budget, one of each kind) on some of the prompts, and
extrapolated to all. Its counts must be those of replay.

The cost of one more tree is the slope of time over the number of trees, on one thread, the recorded trajectories
repeated to at least 25,000 tokens; building the tree from its paths is part of it.
"""

from __future__ import annotations

import json
import platform
import statistics
import tempfile
import time
import tracemalloc
from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path
from typing import Annotated, Any, NamedTuple, TypeVar

import numpy as np
import torch
import typer
from rich.console import Console
from rich.table import Table

from specdraft import SpeculativeDecoder, load_pair
from specdraft.acceptance import Greedy
from specdraft.bench.curve import CostCurve
from specdraft.bench.kept import pair_costs
from specdraft.config import Settings
from specdraft.decoding.ending import Ending
from specdraft.drafters.pair import Pair
from specdraft.prompts import Prompt, PromptSpec, load_prompts, spread
from specdraft.replay.replayer import Replayer
from specdraft.replay.static import pack, replay
from specdraft.results.manifest import cpu_name
from specdraft.results.metrics import COUNTS
from specdraft.sampling.distribution import Sampling
from specdraft.traces.library import PairTraces, pair_traces
from specdraft.traces.store import TraceStore
from specdraft.trees.ranks import PackedRanks
from specdraft.trees.shapes import StaticPlan
from specdraft.trees.shapes.paths import Paths
from specdraft.trees.topology import RankPath, Topology

BUDGETS = (4, 8, 16, 32, 64)
FREE_RANKS = 8
TOKENS = 25_000
Result = TypeVar("Result")


def random_growth(rng: np.random.Generator, nodes: int, closed: bool) -> list[RankPath]:
    """Rank paths of a random tree in the order of growth, so that the first n of them are a tree as well."""
    paths: list[RankPath] = [()]
    taken: dict[RankPath, set[int]] = {(): set()}
    while len(paths) <= nodes:
        parent = paths[rng.integers(len(paths))]
        used = len(taken[parent])
        free = [rank for rank in range(max(FREE_RANKS, used + 1)) if rank not in taken[parent]]
        rank = used if closed else int(rng.choice(free))
        taken[parent].add(rank)
        paths.append((*parent, rank))
        taken[paths[-1]] = set()
    return paths[1:]


def random_growths(count: int, nodes: int, seed: int) -> list[list[RankPath]]:
    """`count` random trees; the even ones are sibling-closed."""
    rng = np.random.default_rng(seed)
    return [random_growth(rng, nodes, closed=index % 2 == 0) for index in range(count)]


class Recording(NamedTuple):
    """The traces of a pair, recorded into a fresh store, and what that took."""

    traces: PairTraces
    costs: CostCurve
    ids: dict[str, list[int]]
    record_s: float
    costs_s: float

    @classmethod
    def of(cls, pair: Pair, prompts: Sequence[Prompt], ending: Ending) -> Recording:
        """Record and annotate every prompt; nothing is reused."""
        ids = {prompt.prompt_id: pair.encode(prompt.text) for prompt in prompts}
        pair.target.prefill(next(iter(ids.values())))  # warm
        pair.target.reset()
        with tempfile.TemporaryDirectory() as folder:
            store = TraceStore(Path(folder))
            traces, record_s = timed(lambda: pair_traces(pair, ids, Sampling(), ending, store))
            costs, costs_s = timed(lambda: pair_costs(pair, store))
        return cls(traces, costs, ids, record_s, costs_s)

    def replayer(self, prompts: Sequence[Prompt]) -> Replayer:
        """Replays these prompts."""
        return Replayer(self.traces, prompts, self.costs, seed=0)

    def packed(self) -> PackedRanks:
        """The ranks of every prompt."""
        ranks = [self.traces.annotations[name].ranks for name in self.ids]
        return pack(ranks, [self.traces.trajectories[name].tokens for name in self.ids])


def timed(run: Callable[[], Result]) -> tuple[Result, float]:
    """The result, and seconds."""
    started = time.perf_counter()
    result = run()
    return result, time.perf_counter() - started


def replay_all(growths: Sequence[list[RankPath]], budgets: Sequence[int], replayer: Replayer) -> float:
    """Seconds of replaying each tree at each budget, trees built and estimates of time included."""
    started = time.perf_counter()
    for paths in growths:
        for budget in budgets:
            replayer.run_plan(StaticPlan(Topology.from_paths(paths[:budget])), Greedy())
    return time.perf_counter() - started


def live_seconds(
    pair: Pair, trees: Sequence[list[RankPath]], prompts: Sequence[Prompt], recording: Recording, new_tokens: int
) -> float:
    """Mean seconds of decoding one prompt with one tree; exits where the counts are not replay's."""
    replayer = recording.replayer(prompts)
    seconds = []
    for paths in trees:
        decoder = SpeculativeDecoder(pair, Paths(paths=[list(path) for path in paths]), len(paths), new_tokens)
        decoder.generate(recording.ids[prompts[0].prompt_id])
        replayed = replayer.run_plan(StaticPlan(Topology.from_paths(paths)), Greedy()).sums
        for number, prompt in enumerate(prompts):
            result, took = timed(partial(decoder.generate, recording.ids[prompt.prompt_id]))
            seconds.append(took)
            if any(getattr(result.tally, name) != replayed[name][number] for name in COUNTS):
                raise SystemExit(f"prompt {prompt.prompt_id}: live decoding counts otherwise than replay")
    return statistics.mean(seconds)


def repeated(packed: PackedRanks, tokens: int) -> PackedRanks:
    """The trajectories again and again, until there are at least so many recorded tokens."""
    times = -(-tokens // recorded_tokens(packed))
    return PackedRanks(*(np.concatenate([field] * times) for field in packed))


def recorded_tokens(packed: PackedRanks) -> int:
    """Tokens of all trajectories."""
    return int((packed.last + 1).sum())


def replay_seconds(growths: Sequence[list[RankPath]], budget: int, packed: PackedRanks, rounds: int = 3) -> float:
    """Seconds of replaying each tree's first `budget` nodes, trees built included: the median of the rounds."""

    def once() -> None:
        for paths in growths:
            replay(Topology.from_paths(paths[:budget]), packed)

    return statistics.median(timed(once)[1] for _ in range(rounds))


def one_more_ms(growths: Sequence[list[RankPath]], budget: int, packed: PackedRanks) -> float:
    """Milliseconds per 25,000 recorded tokens that one more tree takes: from a fifth of the trees to all of them."""
    few = growths[: len(growths) // 5]
    more = replay_seconds(growths, budget, packed) - replay_seconds(few, budget, packed)
    return 1000 * more / (len(growths) - len(few)) * TOKENS / recorded_tokens(packed)


def growth_rows(growths: Sequence[list[RankPath]], packed: PackedRanks) -> list[dict[str, Any]]:
    """How replay's time grows with trees, tokens and budget: one of them changes, the others stay."""
    few, half = len(growths) // 4, len(growths) // 2
    cases = [(n, TOKENS, 16) for n in (few, half, len(growths))]
    cases += [(few, TOKENS * n, 16) for n in (2, 4)]
    cases += [(few, TOKENS, budget) for budget in BUDGETS if budget != 16]
    rows = []
    for trees, tokens, budget in cases:
        larger = repeated(packed, tokens)
        seconds = replay_seconds(growths[:trees], budget, larger)
        row = {"trees": trees, "recorded_tokens": recorded_tokens(larger), "budget": budget, "seconds": seconds}
        rows.append(row | {"ms_per_tree": 1000 * seconds / trees})
    return rows


def memory_rows(paths: list[RankPath], packed: PackedRanks) -> list[dict[str, Any]]:
    """The most that replaying one tree holds at once, results included, beyond the ranks."""
    rows = []
    for tokens, budget in ((TOKENS, 16), (TOKENS, 64), (4 * TOKENS, 64)):
        larger, topology = repeated(packed, tokens), Topology.from_paths(paths[:budget])
        tracemalloc.start()
        kept = replay(topology, larger)
        now, peak = tracemalloc.get_traced_memory()
        tracemalloc.stop()
        count = recorded_tokens(larger)
        row = {"prompts": len(kept.sums["steps"]), "recorded_tokens": count, "budget": budget, "peak_bytes": peak}
        rows.append(row | {"peak_bytes_per_token": peak / count, "kept_bytes_per_token": now / count})
    return rows


def show(console: Console, title: str, rows: Sequence[dict[str, Any]]) -> None:
    table = Table(*rows[0], title=title)
    for row in rows:
        table.add_row(*(f"{value:.4g}" if isinstance(value, float) else f"{value:,}" for value in row.values()))
    console.print(table)


def main(
    pair: Annotated[str, typer.Option(help="a pair config")] = "zoo",
    shapes: Annotated[int, typer.Option(help="how many random trees", min=10)] = 200,
    prompts: Annotated[int | None, typer.Option(help="how many bundled prompts; default all")] = None,
    live_prompts: Annotated[int, typer.Option(help="prompts that live decoding is timed on")] = 8,
    new_tokens: Annotated[int, typer.Option(help="tokens per continuation")] = Settings.max_new_tokens,
    seed: Annotated[int, typer.Option(help="of the random trees")] = 0,
    out: Annotated[Path | None, typer.Option(help="also write the figures as JSON")] = None,
) -> None:
    loaded, console = load_pair(pair), Console()
    chosen = load_prompts(PromptSpec(limit=prompts))
    growths = random_growths(shapes, max(BUDGETS), seed)
    recording = Recording.of(loaded, chosen, Ending(new_tokens, loaded.eos_ids))
    replay_s = replay_all(growths, BUDGETS, recording.replayer(chosen))
    trees = [paths[:budget] for paths in growths[:2] for budget in BUDGETS]
    each_s = live_seconds(loaded, trees, spread(chosen, live_prompts), recording, new_tokens)
    live_s = each_s * shapes * len(BUDGETS) * len(chosen)
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    packed = recording.packed()
    enough = repeated(packed, TOKENS)
    marginal = {str(budget): one_more_ms(growths[:50], budget, enough) for budget in BUDGETS}
    growth, memory = growth_rows(growths, packed), memory_rows(growths[0], packed)
    figures = {
        "recorded_tokens": recorded_tokens(packed),
        "record_s": recording.record_s,
        "costs_s": recording.costs_s,
        "combinations": shapes * len(BUDGETS),
        "replay_s": replay_s,
        "live_s_per_prompt": each_s,
        "live_combinations_timed": len(trees),
        "live_s_extrapolated": live_s,
        "live_over_replay": live_s / replay_s,
        "live_over_record_and_replay": live_s / (recording.record_s + replay_s),
        "one_more_tree_ms": statistics.mean(marginal.values()),
    }
    console.print(
        f"{pair}: {len(chosen)} prompts x {new_tokens} tokens, {shapes} trees x {len(BUDGETS)} budgets", highlight=False
    )
    for name, text in LINES.items():
        console.print(f"{figures[name]:12,.2f}  {text}", highlight=False)
    show(console, f"one more tree, ms per {TOKENS:,} recorded tokens, one thread", [marginal])
    show(console, "how replay's time grows, one thread", growth)
    show(console, "memory of replaying one tree beyond the ranks", memory)
    if out is not None:
        where = {
            "pair": pair,
            "cpu": cpu_name(),
            "device": str(loaded.target.device),
            "threads": threads,
            "torch": torch.__version__,
        }
        where |= {
            "python": platform.python_version(),
            "numpy": np.__version__,
            "prompts": len(chosen),
            "new_tokens": new_tokens,
            "seed": seed,
        }
        tables = {"one_more_tree_ms_by_budget": marginal, "growth": growth, "memory": memory}
        out.write_text(json.dumps(where | figures | tables, indent=1) + "\n")


LINES = {
    "record_s": "s to record and annotate all trajectories",
    "costs_s": "s to measure what drafting and verifying cost (once for each pair and device)",
    "replay_s": "s to replay every combination, estimates of time included",
    "live_s_per_prompt": "s to decode one prompt live (mean of the combinations timed)",
    "live_s_extrapolated": "s to decode every combination live, extrapolated",
    "live_over_replay": "live / replay (goal 1,000, at least 100)",
    "live_over_record_and_replay": "live / (record + replay)",
    "one_more_tree_ms": f"ms for one more tree per {TOKENS:,} recorded tokens, mean of the budgets (goal 2, at "
    "most 10)",
}


if __name__ == "__main__":
    typer.run(main)
