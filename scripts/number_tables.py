"""The tables of numbers in Markdown files, each made from the studies under `results/`: see `fill_numbers.py`.

To add one: a function of the results folder, and its name in `TABLES`.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterable
from math import isnan
from pathlib import Path
from typing import Any

import pandas as pd
from trees_vs_chains_report import sentences

from specdraft.results.intervals import Interval

PAIRS = ("zoo", "zoo-distilled", "zoo-tiny")
ALL, NO_LOOPS = "all", "loop_share <= 0.3"


class StaleError(ValueError):
    """A marker that cannot be filled in."""


def table(head: Iterable[str], rows: Iterable[Iterable[str]]) -> str:
    """A Markdown table."""
    heads = list(head)
    lines = [heads, ["---"] * len(heads), *map(list, rows)]
    return "\n".join(
        f"|{'|'.join(f' {cell} ' if cell or row else ' ' for cell in line)}|" for row, line in enumerate(lines)
    )


def one(rows: pd.DataFrame, **keys: Any) -> Any:
    """The row that has these values. Raises `StaleError` where there is not one."""
    for key, value in keys.items():
        if key not in rows:
            raise StaleError(f"there is no column {key}")
        rows = rows[rows[key].astype(str) == str(value)]
    if len(rows) != 1:
        raise StaleError(f"{len(rows)} rows have {' '.join(f'{key}={value}' for key, value in keys.items())}")
    return rows.iloc[0]


def shown(row: Any, column: str) -> str:
    """A value with its interval, empty where there is none."""
    return "" if isnan(row[column]) else f"{Interval.of(row, column):.2f}"


def ahead(row: Any, column: str) -> str:
    """A difference with its sign and interval."""
    return f"{row[column]:+.2f} [{row[f'{column}_lo']:.2f}, {row[f'{column}_hi']:.2f}]"


def code(names: Iterable[str]) -> list[str]:
    return [f"`{name}`" for name in names]


def methods(results: Path) -> str:
    """Ways to decode, on the zoo and on SmolLM2."""
    zoo, smol = (pd.read_csv(results / "methods" / name / "summary.csv") for name in ("zoo", "smollm2"))
    rows = []
    for method in dict.fromkeys(zoo["method"]):
        cells = [method]
        for of in (zoo, smol):
            there = method in set(of["method"])
            cells += method_cells(one(of, method=method, texts=ALL)) if there else [""] * 3
        rows.append(cells)
    columns = ("tokens/s", "tokens per step", "speed-up")
    return table(("method", f"zoo: {columns[0]}", *columns[1:], f"SmolLM2-135M: {columns[0]}", *columns[1:]), rows)


def method_cells(row: Any) -> list[str]:
    efficiency = row["block_efficiency"]
    return [f"{row['tokens_per_s']:.1f}", "" if isnan(efficiency) else f"{efficiency:.2f}", shown(row, "speedup")]


def quoting(results: Path) -> str:
    """What looks up earlier text, where there is text to quote."""
    folder = results / "methods" / "smollm2-quoting"
    summary, categories = (pd.read_csv(folder / name) for name in ("summary.csv", "by_category.csv"))
    rows = [
        [
            method,
            *method_cells(one(summary, method=method, texts=ALL)),
            *(
                shown(one(categories, method=method, texts=ALL, category=kind), "speedup")
                for kind in ("summarization", "rag")
            ),
            f"{one(summary, method=method, texts=NO_LOOPS)['speedup']:.2f}",
        ]
        for method in dict.fromkeys(summary["method"])
    ]
    head = ("method", "tokens/s", "tokens per step", "speed-up", "summarization", "retrieval", "without loops")
    return table(head, rows)


STUDY = (
    *((tree, 4) for tree in ("chain", "kary", "beam", "sequoia", "best_first-calibrated")),
    *((tree, 16) for tree in ("chain", "kary", "beam", "sequoia", "measured", "best_first-calibrated")),
    ("medusa", 63),
    *((tree, 64) for tree in ("chain", "kary", "beam", "sequoia", "measured", "best_first-calibrated", "hindsight")),
)


def study(results: Path) -> str:
    """Block efficiency of the reference study: trees down, pairs across."""
    summary = pd.read_csv(results / "reference" / "summary.csv")
    rows = (
        [f"`{tree}`", str(budget)]
        + [shown(one(summary, pair=pair, tree=tree, budget=budget), "block_efficiency") for pair in PAIRS]
        for tree, budget in STUDY
    )
    return table(("tree", "nodes", *code(PAIRS)), rows)


def bench(results: Path) -> str:
    """Live decoding beside `transformers`."""
    ratios = json.loads((results / "reference" / "bench_decode.json").read_text())["ratios"]
    return table(("ratio of tokens per second", ""), ([name, f"{value:.2f}"] for name, value in ratios.items()))


def replay(results: Path) -> str:
    """What replay costs beside live decoding."""
    said = json.loads((results / "reference" / "bench_replay.json").read_text())
    live = "decoding them live, extrapolated from 10 combinations on 8 prompts"
    rows = (
        (f"recording and annotating {said['recorded_tokens']:,} tokens", f"{said['record_s']:.1f} s"),
        (f"replaying {said['combinations']:,} combinations on all prompts", f"{said['replay_s']:.2f} s"),
        (live, f"{said['live_s_extrapolated']:,.0f} s"),
        ("live / replay (goal 1,000)", f"{said['live_over_replay']:,.0f}"),
        ("live / (recording + replay)", f"{said['live_over_record_and_replay']:,.0f}"),
        ("one more tree per 25,000 recorded tokens (goal 2 ms, at most 10)", f"{said['one_more_tree_ms']:.1f} ms"),
    )
    return table(("", ""), rows)


DRAFTED = {"chain 4": ("chain", 4), "k-ary 8": ("kary", 8), "measured 16": ("measured", 16),
           "best-first, calibrated, 16": ("best_first-calibrated-md4", 16), "Medusa's 63": ("medusa", 63)}  # fmt: skip
DRAFTER_NOTES = {"model": " (a draft model of one layer)"}


def drafters(results: Path) -> str:
    """Every kind of drafter on the bundled target, the longest accepted chains first."""
    summary = pd.read_csv(results / "drafters" / "zoo" / "summary.csv")
    chains = summary[(summary["tree"] == "chain") & (summary["budget"] == 4)]
    rows = []
    for drafter in chains.sort_values("block_efficiency", ascending=False)["drafter"]:
        of = summary[summary["drafter"] == drafter]
        there = set(zip(of["tree"], of["budget"], strict=True))
        cells = (
            shown(one(of, tree=tree, budget=budget), "block_efficiency") if (tree, budget) in there else ""
            for tree, budget in DRAFTED.values()
        )
        rows.append([f"`{drafter}`{DRAFTER_NOTES.get(drafter, '')}", *cells])
    return table(("drafter", *DRAFTED), rows)


def batches(results: Path) -> str:
    """Speed-ups of a tree by the size of the batch."""
    summary = pd.read_csv(results / "live" / "zoo" / "summary.csv")
    sizes = sorted(set(summary["batch"]))
    said = {"k-ary, 4 nodes": "kary", "chain, 4 nodes": "chain", "best-first, 4 nodes": "best_first"}
    rows = [
        [name, *(f"{one(summary, tree=tree, batch=size)['speedup']:.2f}" for size in sizes)]
        for name, tree in said.items()
    ]
    kary = [one(summary, tree="kary", batch=size) for size in sizes]
    rows.append(["plain decoding, tokens per second", *(f"{r['tokens_per_s'] / r['speedup']:.0f}" for r in kary)])
    rows.append(["k-ary: median latency, s", *(f"{row['latency_s_p50']:.2f}" for row in kary)])
    return table(("speed-up over plain decoding in batches of the same size", *map(str, sizes)), rows)


def temperatures(results: Path) -> str:
    """What one fitted temperature is worth."""
    trees = pd.read_csv(results / "prediction" / "trees.csv")
    calibrated = "best_first-calibrated"

    def cells(tree: str, show: Callable[[Any], str], budget: int = 16) -> list[str]:
        return [show(one(trees, pair=pair, tree=tree, budget=budget)) for pair in PAIRS]

    rows = (
        ["fitted temperature", *cells(calibrated, lambda row: f"{row['temperature']:.3f}")],
        ["best-first by raw probabilities", *cells("best_first", lambda row: f"{row['block_efficiency']:.2f}")],
        ["best-first at that temperature", *cells(calibrated, lambda row: f"{row['block_efficiency']:.2f}")],
        ["ahead of raw", *cells("best_first", lambda row: ahead(row, "calibrated_ahead"))],
        ["ahead of `sequoia`", *cells("sequoia", lambda row: ahead(row, "calibrated_ahead"))],
        ["ahead of `sequoia` at 64 nodes", *cells("sequoia", lambda row: ahead(row, "calibrated_ahead"), 64)],
    )
    return table(("", *code(PAIRS)), rows)


def predicted(results: Path) -> str:
    """Trees by a predictor beside trees by the temperature alone."""
    trees = pd.read_csv(results / "prediction" / "predicted_trees.csv")
    rows = []
    for budget in (16, 64):
        of = [one(trees, pair=pair, budget=budget) for pair in PAIRS]
        rows.append([f"{budget} nodes: the temperature alone", *(f"{row['calibrated']:.2f}" for row in of)])
        rows.append([f"{budget} nodes: predictor", *(f"{row['predictor']:.2f}" for row in of)])
        rows.append([f"{budget} nodes: ahead by", *(ahead(row, "ahead") for row in of)])
    return table(("", *code(PAIRS)), rows)


def calibration(results: Path) -> str:
    """Expected calibration error of a node given its parent."""
    said = {"raw": "raw", "one temperature": "temperature", "network": "mlp", "logistic": "logistic"}
    errors = pd.read_csv(results / "prediction" / "calibration.csv")
    errors = errors[(errors["what"] == "conditional") & (errors["calibration"].fillna("none") == "none")]
    rows = []
    for sampling, names, digits in (
        ("greedy", ("raw", "one temperature", "network"), 3),
        ("sampled at temperature 1", ("raw", "logistic"), 4),
    ):
        for name in names:
            of = [one(errors, pair=pair, sampling=sampling, model=said[name]) for pair in PAIRS]
            cells = (f"{row['ece_debiased']:.{digits}f}" for row in of)
            rows.append([f"{sampling.replace('sampled ', '')}: {name}", *cells])
    return table(("", *code(PAIRS)), rows)


def pruning(results: Path) -> str:
    """Accepted tokens a step that a quarter fewer nodes cost."""
    curves = pd.read_csv(results / "prediction" / "pruning.csv")
    rows = []
    for tree, nodes in (("kary", 16), ("sequoia", 16), ("medusa", 63), ("best_first-calibrated", 16)):
        of = {pair: quarter(curves[(curves["pair"] == pair) & (curves["tree"] == tree) & (curves["nodes"] == nodes)])
              for pair in PAIRS}  # fmt: skip
        lost = {name: [of[pair][name] for pair in PAIRS] for name in ("calibrated", "predictor", "random")}
        chance = f"{max(lost['random']):.2f} to {min(lost['random']):.2f}"
        rows.append([f"`{tree}` {nodes}", "calibrated", *(f"{value:.3f}" for value in lost["calibrated"]), chance])
        rows.append(["", "predictor", *(f"{value:.3f}" for value in lost["predictor"]), ""])
    return table(("tree", "", *code(PAIRS), "random"), rows)


def quarter(of_tree: pd.DataFrame) -> dict[str, float]:
    """Scores -> the difference where calibrated scores leave nearest to three quarters of the nodes."""
    whole = float(one(of_tree, policy="none")["nodes_per_start"])
    cut = of_tree[of_tree["policy"] == "threshold"]
    own = cut[cut["scores"] == "calibrated"]
    at = own["parameter"].iloc[int((own["nodes_per_start"] - 0.75 * whole).abs().argmin())]
    return {str(row["scores"]): float(row["difference"]) for _, row in cut[cut["parameter"] == at].iterrows()}


def alignment(results: Path) -> str:
    """An affine alignment as a drafter."""
    heads = pd.read_csv(results / "prediction" / "alignment.csv")
    rows = []
    for _, row in heads[heads["tree"] == "chain 4"].iterrows():
        fit = [f"{row[name]:.2f}" if not isnan(row[name]) else "" for name in ("r2", "cosine")]
        fit += [f"{row['agreement']:.3f}", f"{row['kl']:.3f}", f"{row['block_efficiency']:.2f}"]
        rows.append([f"`{row['pair']}`", row["head"], *fit, "" if row["head"] == "own" else shown(row, "difference")])
    head = ("pair", "head", "R2", "cosine", "top-1 agreement", "KL, nats", "chain 4", "difference to own")
    return table(head, rows)


def theory(results: Path) -> str:
    """The closed form for chains beside what they do (`specdraft theory pair=zoo --json`)."""
    chains = json.loads((results / "theory" / "zoo.json").read_text())["table"]
    rows = (
        [
            str(chain["gamma"]),
            f"{chain['predicted_tokens']['value']:.2f}",
            f"{chain['predicted_in_texts']:.2f}",
            f"{Interval(*chain['measured_tokens'].values()):.2f}",
        ]
        for chain in chains
        if chain["gamma"] in (1, 4, 16)
    )
    return table(("gamma", "predicted", "cut at the texts' ends", "measured"), rows)


def trees_vs_chains(results: Path) -> str:
    """The answer of the study of the same name, in sentences."""
    return "\n".join(f"- {sentence}" for sentence in sentences(results / "trees-vs-chains"))


MADE = (methods, quoting, study, bench, replay, theory, drafters, batches, temperatures, predicted, calibration,
        pruning, alignment, trees_vs_chains)  # fmt: skip
TABLES: dict[str, Callable[[Path], str]] = {made.__name__.replace("_", "-"): made for made in MADE}
