"""Live decoding against transformers' assisted generation and plain decoding, as ratios measured in one run.

    python scripts/bench_decode.py [--pair zoo | --folder DIR] [--cache static,graph] [--prompts 16] [--rounds 3]
                                   [--new-tokens 64] [--out FILE.json]

DIR is what scripts/make_layered_pair.py wrote. `--cache` also decodes plainly and with a few trees in these caches
(compiling for a processor takes a minute for each size of tree): what `cache=auto` is stands on this table.

Every method decodes every prompt in turn, and the rounds are interleaved, so that a slow minute of the
machine meets all methods alike. Each text must equal plain greedy decoding.

`transformers` decodes with models as it loads them itself. What our loading does to weights for a few tokens at a time
speeds up its assisted generation too: the row "our weights" says how much.

Where scikit-learn is installed, transformers' assisted generation moves its confidence threshold while it
decodes (by a ROC curve over the text so far). Here the threshold stays at the default's 0.4, or off in the
matched settings, so that the figures do not depend on what else is installed.
"""

from __future__ import annotations

import json
import os
import platform
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import AbstractContextManager, contextmanager
from math import inf
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Annotated, Any, NamedTuple
from unittest.mock import patch

import torch
import typer
from rich.console import Console
from rich.table import Table

from specdraft import SpeculativeDecoder, load_pair
from specdraft.acceptance import Greedy
from specdraft.bench.costs import measure_costs
from specdraft.config import Settings
from specdraft.decoding.decode import decode_plainly
from specdraft.decoding.ending import Ending
from specdraft.decoding.seat import Caches
from specdraft.drafters.loaded.model import ModelDrafter
from specdraft.drafters.pair import Pair, find_pair
from specdraft.models.spec import ModelSpec, PairSpec
from specdraft.prompts import Prompt, PromptSpec, load_prompts
from specdraft.replay.replayer import Replayer, dynamic_trees
from specdraft.results.manifest import cpu_name
from specdraft.sampling.distribution import Sampling
from specdraft.traces.library import pair_traces
from specdraft.traces.store import TraceStore
from specdraft.trees.shapes import registry

Method = Callable[[list[int]], list[int]]
OUR_WEIGHTS = ", our weights"
GRAPH = ", graph"
IN_CACHES = [("kary", 2), ("kary", 8), ("best_first", 8)]  # beside the matched chain
TREES = [(tree, budget) for tree in ("chain", "kary", "beam", "branching", "best_first") for budget in (2, 4, 8, 16)]


def fixed_threshold() -> AbstractContextManager[Any]:
    """As if scikit-learn were not installed: there is no setting for it."""
    return patch("transformers.generation.candidate_generator.is_sklearn_available", lambda: False)


class Loaded(NamedTuple):
    """Target and draft model for `generate` of transformers."""

    target: Any
    draft: Any


def as_transformers_loads(pair: Pair) -> Loaded:
    """From the files of a pair, without what our own loading does besides."""
    files, device = (pair.files.target, pair.files.draft), pair.target.device
    target, draft = (
        one.model_class.from_pretrained(one.folder, dtype=pair.target.dtype).eval().to(device)
        for one in files
        if one is not None
    )
    return Loaded(target, draft)


def as_we_load(pair: Pair) -> Loaded:
    """The models that our own methods decode with."""
    assert isinstance(pair.drafter, ModelDrafter)
    return Loaded(pair.target.model, pair.drafter.model.model)


def hf_method(pair: Pair, models: Loaded, new_tokens: int, assistant: dict[str, Any] | None) -> Method:
    """`generate` of transformers: plain, or assisted with these settings on the assistant."""
    eos = sorted(pair.eos_ids) or None
    options: dict[str, Any] = {
        "max_new_tokens": new_tokens,
        "do_sample": False,
        "eos_token_id": eos,
        "pad_token_id": (eos or [0])[0],
    }

    def run(ids: list[int]) -> list[int]:
        if assistant is not None:
            for name, value in assistant.items():
                setattr(models.draft.generation_config, name, value)
            options["assistant_model"] = models.draft
        row = torch.tensor([ids], device=pair.target.device)
        with torch.inference_mode(), fixed_threshold():
            out = models.target.generate(row, attention_mask=torch.ones_like(row), **options)
        tokens: list[int] = out[0, len(ids) :].tolist()
        return tokens

    return run


def tree_method(pair: Pair, tree: str, budget: int, new_tokens: int, cache: str = "dynamic") -> Method:
    """Our decoder with one tree."""
    decoder = SpeculativeDecoder(pair, registry()[tree](), budget, new_tokens, cache=cache)
    return lambda ids: decoder.generate(ids).token_ids


def plain_method(pair: Pair, new_tokens: int, cache: str) -> Method:
    """Our decoder without any, in the same cache."""
    ending, verifier = Ending(new_tokens, pair.eos_ids), Caches(pair).seat(cache).verifier
    return lambda ids: decode_plainly(verifier, Sampling(), ids, ending)


def inside(pair: Pair, tree: str, budget: int, new_tokens: int, prompts: list[list[int]]) -> float:
    """The share of the time after the prompt in which something is drafted or verified."""
    decoder = SpeculativeDecoder(pair, registry()[tree](), budget, new_tokens)
    tallies = [decoder.generate(ids).tally for ids in prompts]
    worked = sum(tally.draft_s + tally.verify_s for tally in tallies)
    return worked / sum(tally.wall_s - tally.prefill_s for tally in tallies)


def estimates(pair: Pair, prompts: list[Prompt], new_tokens: int) -> dict[str, float]:
    """Name -> tokens per second that a replayed sweep would write."""
    ids, plans = {p.prompt_id: pair.encode(p.text) for p in prompts}, {(t, n): registry()[t]().at(n) for t, n in TREES}
    with TemporaryDirectory() as folder:
        store = TraceStore(Path(folder))
        traces = pair_traces(pair, ids, Sampling(), Ending(new_tokens, pair.eos_ids), store)
        trees = dynamic_trees(pair, ids, traces, plans.values(), store, lambda what: None)
        replayer = Replayer(traces, prompts, measure_costs(pair).believed, 0, trees)
        sums = {name: replayer.run_plan(plan, Greedy()).sums for name, plan in plans.items()}
    return {
        f"specdraft {t} {n}": float(found["new_tokens"].sum() / found["est_s"].sum()) for (t, n), found in sums.items()
    }


def methods(pair: Pair, new_tokens: int, length: int, caches: list[str]) -> dict[str, Method]:
    """Name -> method. The matched settings draft `length` tokens in every step, as our chain does."""
    matched = {
        "num_assistant_tokens": length,
        "num_assistant_tokens_schedule": "constant",
        "assistant_confidence_threshold": 0.0,
    }
    defaults = {
        "num_assistant_tokens": 20,
        "num_assistant_tokens_schedule": "constant",
        "assistant_confidence_threshold": 0.4,
    }
    ours = {f"specdraft {tree} {budget}": tree_method(pair, tree, budget, new_tokens) for tree, budget in TREES}
    theirs, here = as_transformers_loads(pair), as_we_load(pair)
    return {
        "transformers plain": hf_method(pair, theirs, new_tokens, None),
        "transformers assisted, defaults": hf_method(pair, theirs, new_tokens, defaults),
        f"transformers assisted, {length} tokens": hf_method(pair, theirs, new_tokens, matched),
        f"transformers assisted, {length} tokens{OUR_WEIGHTS}": hf_method(pair, here, new_tokens, matched),
        "specdraft plain": plain_method(pair, new_tokens, "dynamic"),
        f"specdraft chain {length}": tree_method(pair, "chain", length, new_tokens),
        **ours,
        **{f"specdraft plain, {cache}": plain_method(pair, new_tokens, cache) for cache in caches},
        **{
            f"specdraft {tree} {budget}, {cache}": tree_method(pair, tree, budget, new_tokens, cache)
            for cache in caches
            for tree, budget in [("chain", length), *IN_CACHES]
        },
    }


def found(pair: str, folder: Path | None) -> Pair:
    """A pair by its name, or one that was made."""
    if folder is None:
        return load_pair(pair)
    target, draft = (ModelSpec(str(folder / name)) for name in ("target", "draft"))
    return load_pair(find_pair(PairSpec(folder.name, target, draft)))


@contextmanager
def as_on_a_new_machine() -> Iterator[None]:
    """Nothing that was compiled earlier is found."""
    with TemporaryDirectory() as folder, patch.dict(os.environ, TORCHINDUCTOR_CACHE_DIR=folder):
        yield


class Measured(NamedTuple):
    """Name -> tokens per second over all prompts: the median round; and of methods with graphs the seconds of a first
    round, in which they are made."""

    speed: dict[str, float]
    first_s: dict[str, float]
    tokens: int  # of a round


def measure(pair: Pair, runs: dict[str, Method], prompts: list[list[int]], rounds: int) -> Measured:
    """All methods in turns."""
    wanted, first = [runs["transformers plain"](ids) for ids in prompts], dict[str, float]()
    for name, run in runs.items():
        started = time.perf_counter()
        with as_on_a_new_machine():
            for ids in prompts if name.endswith(GRAPH) else prompts[:1]:
                run(ids)  # a graph is made for each size and length
        if name.endswith(GRAPH):
            first[name] = time.perf_counter() - started
    seconds: dict[str, list[float]] = {name: [0.0] * rounds for name in runs}
    for turn in range(rounds):
        for ids, text in zip(prompts, wanted, strict=True):
            for name, run in runs.items():
                started = time.perf_counter()
                got = run(ids)
                seconds[name][turn] += time.perf_counter() - started
                if got != text:
                    raise SystemExit(f"{name}: the text differs from plain greedy decoding")
    total = sum(map(len, wanted))
    return Measured({name: total / sorted(turns)[rounds // 2] for name, turns in seconds.items()}, first, total)


def made_up_for(measured: Measured) -> dict[str, float]:
    """Method with graphs -> tokens after which making them has paid; infinite: never."""
    found = {}
    for name, first_s in measured.first_s.items():
        saved = 1 / measured.speed[name.removesuffix(GRAPH)] - 1 / measured.speed[name]
        found[name] = max(0.0, first_s - measured.tokens / measured.speed[name]) / saved if saved > 0 else inf
    return found


def in_caches(speed: Mapping[str, float], caches: list[str]) -> dict[str, float]:
    """Every method in another cache over itself in the growing one."""
    ends = [f", {cache}" for cache in caches]
    pairs = [(name, name.removesuffix(end)) for end in ends for name in speed if name.endswith(end)]
    return {f"{name} / in a growing cache": speed[name] / speed[usual] for name, usual in pairs}


def main(
    pair: Annotated[str, typer.Option(help="a pair config")] = "zoo",
    prompts: Annotated[int, typer.Option(help="how many bundled prompts")] = 16,
    rounds: Annotated[int, typer.Option(help="the median of so many")] = 3,
    new_tokens: Annotated[int, typer.Option(help="tokens per continuation")] = Settings.max_new_tokens,
    length: Annotated[int, typer.Option(help="draft tokens of the matched settings")] = 4,
    folder: Annotated[Path | None, typer.Option(help="of scripts/make_layered_pair.py, instead of a pair")] = None,
    cache: Annotated[str, typer.Option(help="other caches, as static,graph")] = "",
    out: Annotated[Path | None, typer.Option(help="also write the figures as JSON")] = None,
) -> None:
    loaded, caches = found(pair, folder), [kind for kind in cache.split(",") if kind]
    chosen = load_prompts(PromptSpec(limit=prompts))
    texts = [loaded.encode(p.text) for p in chosen]
    measured = measure(loaded, methods(loaded, new_tokens, length, caches), texts, rounds)
    speed = measured.speed
    plain, defaults, matched = (speed[n] for n in list(speed)[:3])
    tree, budget = max(TREES, key=lambda one: speed[f"specdraft {one[0]} {one[1]}"])
    best = f"specdraft {tree} {budget}"
    ratios = {
        f"specdraft chain {length} / transformers assisted, {length} tokens": speed[f"specdraft chain {length}"]
        / matched,
        f"specdraft chain {length} / transformers assisted, {length} tokens{OUR_WEIGHTS}": speed[
            f"specdraft chain {length}"
        ]
        / speed[f"transformers assisted, {length} tokens{OUR_WEIGHTS}"],
        f"best tree ({best}) / transformers assisted, defaults": speed[best] / defaults,
        f"best tree ({best}) / transformers plain": speed[best] / plain,
        f"best tree ({best}) / specdraft plain": speed[best] / speed["specdraft plain"],
        "transformers assisted, defaults / transformers plain": defaults / plain,
        f"drafting and verifying / time after the prompt ({best})": inside(loaded, tree, budget, new_tokens, texts),
        **in_caches(speed, caches),
        **{
            f"specdraft chain {length}, {kind} / transformers assisted, {length} tokens": speed[
                f"specdraft chain {length}, {kind}"
            ]
            / matched
            for kind in caches
        },
    }
    guessed = estimates(loaded, chosen, new_tokens)
    errors = {name: value / speed[name] - 1 for name, value in guessed.items()}
    columns = ("method", "tokens/s", "/ transformers plain", "replay's estimate", "error")
    table = Table(*columns, title=f"{pair}: {prompts} prompts x {new_tokens} tokens, median of {rounds}")
    for name, value in speed.items():
        estimate = (f"{guessed[name]:.0f}", f"{errors[name]:+.0%}") if name in guessed else ("", "")
        table.add_row(name, f"{value:.0f}", f"{value / plain:.2f}", *estimate)
    console = Console()
    console.print(table)
    for name, value in ratios.items():
        console.print(f"{value:5.2f}  {name}", highlight=False)
    for name, tokens in made_up_for(measured).items():
        console.print(
            f"{name}: a first round took {measured.first_s[name]:.0f} s; made up for after {tokens:,.0f} tokens"
        )
    worst = max(errors.values(), key=abs)
    mean = sum(map(abs, errors.values())) / len(errors)
    console.print(
        f"estimates of time against live runs: mean absolute error {mean:.0%}, worst {worst:+.0%}, {len(errors)} trees",
        highlight=False,
    )
    if out is not None:
        where = {
            "pair": pair,
            "cpu": cpu_name(),
            "device": str(loaded.target.device),
            "threads": torch.get_num_threads(),
        }
        versions = {"python": platform.python_version(), "torch": torch.__version__}
        out.write_text(
            json.dumps(
                where
                | versions
                | {"tokens_per_s": speed, "estimates": guessed, "ratios": ratios, "first_round_s": measured.first_s},
                indent=1,
            )
            + "\n"
        )


if __name__ == "__main__":
    typer.run(main)
