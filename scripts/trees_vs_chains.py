"""Does a tree pay against the best chain at equal time? All drafters of the bundled pairs and of SmolLM2.

    python scripts/trees_vs_chains.py [--smollm2 FOLDER] [--out results/trees-vs-chains] [--work FOLDER] [--live 12]

FOLDER holds SmolLM2 as scripts/fetch_smollm2.py --out FOLDER --drafters writes it. Costs are measured first (wants a
quiet machine) and kept in OUT/costs: what is there is not measured again. Then experiment=trees_vs_chains and its
sampled half are replayed under this machine's costs and under made-up ones, and the fastest tree of each family is set
beside the fastest chain, each chosen on one half of the prompts and timed on the other. What a killed run has in WORK
is taken up again. scripts/trees_vs_chains_report.py makes a page of the tables.
"""

from __future__ import annotations

import json
import re
import subprocess
import sys
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Annotated, Any, NamedTuple

import pandas as pd
import typer

from specdraft.bench.cost_file import KIND
from specdraft.bench.curve import CostCurve
from specdraft.replay.folds import folds
from specdraft.results.best_at_time import Times, contest, speed_ratio, verdict
from specdraft.results.files import to_csv, write_atomically
from specdraft.results.intervals import columns

ROOT = Path(__file__).resolve().parent.parent
OUT = ROOT / "results" / "trees-vs-chains"
DYNAMIC = "tree=best_first,best_first-calibrated,best_first-sized"
FAMILIES = {
    "fixed shape": ("kary", "branching", "beam"),
    "sequoia": ("sequoia",),
    "measured": ("measured",),
    "best-first, raw": ("best_first",),
    "best-first, calibrated": ("best_first-calibrated",),
    "sized by cost": ("best_first-calibrated-goodput",),
}
ANY = "any tree"
GREEDY, SAMPLED = "experiment=trees_vs_chains", "experiment=trees_vs_chains-sampled"


@dataclass(frozen=True)
class Case:
    """A pair with one of its drafters.

    Attributes:
        overrides: that say which.
        levels: as many as the drafter makes at most; None: as many as a tree wants.
        dynamic: it has probabilities, so that best-first trees can be drafted.
    """

    pair: str
    drafter: str
    overrides: list[str]
    levels: int | None = None
    dynamic: bool = True
    more: list[str] = field(default_factory=list)

    @property
    def name(self) -> str:
        """Of its files."""
        return f"{self.pair}-{self.drafter}"

    def sweeps(self, costs: str) -> Iterator[list[str]]:
        """What is swept under a table of costs, one after the other into one folder."""
        for half in (GREEDY, SAMPLED) if costs in OF_SAMPLES else (GREEDY,):
            yield [half, *self.overrides, *self.more]
            if self.dynamic and self.levels:
                yield [half, *self.overrides, *self.more, DYNAMIC, f"tree.max_depth={self.levels}"]


def bundled(prompts: int) -> Iterator[Case]:
    """Of the bundled pairs: other drafts than a pair's own model are those of `zoo`."""
    more = [f"prompts.limit={prompts}"]
    for drafter, levels in (
        ("model", None), ("nano", None), ("eagle", None), ("early_exit", None), ("hydra", 4), ("redrafter", 4),
        ("parallel", 4), ("medusa", 4),
    ):  # fmt: skip
        yield Case("zoo", drafter, ["pair=zoo", f"drafter={drafter}"], levels, more=more)
    for drafter in ("suffix", "ngram"):
        yield Case("zoo", drafter, ["pair=zoo", f"drafter={drafter}"], dynamic=False, more=more)
    for pair in ("zoo-distilled", "zoo-tiny"):
        yield Case(pair, "model", [f"pair={pair}", "drafter=model"], more=more)


def smollm2(folder: Path, prompts: int) -> Iterator[Case]:
    """SmolLM2-135M-Instruct on instructions, in bfloat16."""
    more = ["prompts=instruct", f"prompts.limit={prompts}", "max_new_tokens=48", "budget=1,2,3,4,6,8,16"]
    pair = ["pair=smollm2-layers8", "pair.name=smollm2", f"pair.target.path={folder}"]
    pair += [f"pair.draft.path={folder}-layers8", "pair.target.dtype=bfloat16", "pair.draft.dtype=bfloat16"]
    for drafter, levels in (("model", None), ("eagle", None), ("medusa", 4), ("early_exit", None)):
        yield Case("smollm2", drafter, [*pair, f"drafter={drafter}"], levels, more=more)
    for drafter in ("suffix", "ngram"):
        yield Case("smollm2", drafter, [*pair, f"drafter={drafter}"], dynamic=False, more=more)


def specdraft(*args: str) -> None:
    """Run the command; what it prints goes to the error stream. Raises `SystemExit` where it fails."""
    command = [sys.executable, "-c", "from specdraft.cli import main; main()", *args]
    done = subprocess.run(command, stdout=sys.stderr, check=False)
    if done.returncode:
        raise SystemExit(f"specdraft {' '.join(args)}: exit code {done.returncode}")


def measure(case: Case, folder: Path) -> Path:
    """The file of this machine's costs, measured where it is not there yet."""
    path = folder / f"{case.name}.json"
    if not path.exists():
        folder.mkdir(parents=True, exist_ok=True)
        specdraft("bench", "costs", *case.overrides, "--out", str(path))
    curve = curves_of(path)[0]
    if curve.doubts:
        path.unlink()
        raise SystemExit(f"{case.name}: {curve.doubts[0]}; measure on a quiet machine")
    return path


def curves_of(path: Path) -> list[CostCurve]:
    """What a file of costs holds."""
    return [CostCurve.of(curve) for curve in json.loads(path.read_text(encoding="utf-8"))["curves"]]


def made_up(curve: CostCurve, verify: dict[int, float], light: bool) -> CostCurve:
    """Costs that nobody measured: verifying n tokens takes so many target passes, and nothing but it and drafting any
    time; a level of drafting takes what it takes here for one node, whatever its width, or a 33rd of a pass."""
    one = curve.verify_s[0]
    level, begin = curve.draft_level_s[0], curve.draft_begin_s
    if light:
        level, begin = (min(seconds, 0.03 * one) for seconds in (level, begin))
    sizes = list(verify)
    return replace(
        curve, sizes=sizes, verify_s=[one * passes for passes in verify.values()], draft_level_s=[level] * len(sizes),
        draft_begin_s=begin, plain_s=one, other_s=0.0, select_s=0.0, prefill_s=curve.target_prefill_s, measured=None,
        device="made up",
    )  # fmt: skip


FLAT = {1: 1.0, 65: 1.0}
LINEAR = {1: 1.0, 65: 3.0}
STEPS = {1: 1.0, 8: 1.0, 9: 1.25, 16: 1.25, 17: 1.5, 32: 1.5, 33: 2.0, 65: 2.0}
MADE_UP = {"flat": (FLAT, False), "linear": (LINEAR, False), "steps": (STEPS, False), "flat, light draft": (FLAT, True)}
HERE = "this machine"
OF_SAMPLES = (HERE, "flat, light draft")  # temperature 1 is replayed under these


def tables(measured: Path, folder: Path) -> dict[str, Path]:
    """Name -> file of costs: this machine's, and what is made up from them."""
    about = json.loads(measured.read_text(encoding="utf-8"))
    found = {HERE: measured}
    for name, (verify, light) in MADE_UP.items():
        curves = [made_up(curve, verify, light).as_dict() for curve in curves_of(measured)[:1]]
        found[name] = folder / f"{measured.stem}-{name.replace(', ', '-').replace(' ', '-')}.json"
        write_atomically(found[name], json.dumps(about | {"kind": KIND, "curves": curves}, indent=1) + "\n")
    return found


class Studied(NamedTuple):
    """A case under one table of costs."""

    case: Case
    costs: str
    folder: Path


def answers(studied: Studied) -> Iterator[dict[str, Any]]:
    """A row per setting and family: its fastest tree beside the fastest chain."""
    records = pd.read_csv(studied.folder / "records.csv", dtype={"prompt_id": str})
    records = records[records["est_tokens_per_s"].notna()]
    records = records[(records["tree"] == "chain") | (records["budget"] > 1)]  # of one node, a tree is a chain
    for temperature, rows in records.groupby("temperature"):
        times = Times.estimated(rows, ["tree", "budget", "acceptance"])
        shape = [name.split()[0] for name in times.names]
        halves = folds(times.categories, 0)
        families = {"chain": [name == "chain" for name in shape]}
        families |= {name: [of_family(one, trees) for one in shape] for name, trees in FAMILIES.items()}
        families[ANY] = [any(members) for members in zip(*[families[name] for name in FAMILIES], strict=True)]
        best = contest(times, families, halves)
        chain = best.pop("chain")
        for family, tree in best.items():
            ratio = speed_ratio(chain.seconds, tree.seconds, times.categories)
            over_plain = {
                f"{side}_speedup": speed_ratio(times.plain_s, seconds, times.categories)
                for side, seconds in (("chain", chain.seconds), ("tree", tree.seconds))
            }
            yield {
                "pair": studied.case.pair, "drafter": studied.case.drafter, "temperature": temperature,
                "costs": studied.costs, "family": family, "chain": chain.name, "tree": tree.name,
                **columns({"ratio": ratio, **over_plain}), "faster": verdict(ratio, "tree", "chain"),
                "prompts": len(times.categories),
            }  # fmt: skip


def of_family(shape: str, trees: Sequence[str]) -> bool:
    """Whether a shape's name is one of these, or says besides how deep it goes."""
    return re.sub(r"-md\d+", "", shape) in trees


def efficiencies(studied: Studied) -> pd.DataFrame:
    """Tokens per step of every tree: the same whatever it costs, those aside that are sized by cost."""
    kept = ["pair", "drafter", "temperature", "acceptance", "tree", "budget", "steps", "drafted_tokens"]
    kept += ["block_efficiency", "block_efficiency_lo", "block_efficiency_hi"]
    rows = pd.read_csv(studied.folder / "summary.csv")[kept]
    return rows.assign(pair=studied.case.pair, drafter=studied.case.drafter)


def below_siblings(studied: Studied) -> Iterator[dict[str, Any]]:
    """How often the next level hits below a first child, and below its siblings: of the widest greedy tree."""
    rows = pd.read_csv(studied.folder / "siblings.csv")
    rows = rows[(rows["tree"] == "measured") & (rows["temperature"] == 0)]
    rows = rows[rows["budget"] == rows["budget"].max()]
    for first, group in rows.groupby(rows["rank"] == 0):
        reached, accepted = group["next_reached"].sum(), group["next_accepted"].sum()
        if reached:
            name = "the first child" if first else "a sibling"
            yield {"pair": studied.case.pair, "drafter": studied.case.drafter, "below": name,
                   "reached": reached, "accepted": accepted, "rate": accepted / reached}  # fmt: skip


def main(
    out: Annotated[Path, typer.Option(help="where the answer goes")] = OUT,
    smollm2_folder: Annotated[Path | None, typer.Option("--smollm2", help="where SmolLM2 is")] = None,
    prompts: Annotated[int, typer.Option(help="how many of the default prompts")] = 40,
    smollm2_prompts: Annotated[int, typer.Option(help="how many instructions")] = 24,
    work: Annotated[Path | None, typer.Option(help="where the studies go; left out: they are not kept")] = None,
    only: Annotated[str | None, typer.Option(help="cases whose name has this in it")] = None,
    measure_only: Annotated[bool, typer.Option(help="stop when costs are measured")] = False,
    live: Annotated[
        int, typer.Option(help="prompts that the fastest chains and trees of bundled pairs are decoded on, live")
    ] = 0,
) -> None:
    cases = [*bundled(prompts), *(smollm2(smollm2_folder, smollm2_prompts) if smollm2_folder else ())]
    cases = [case for case in cases if only is None or only in case.name]
    measured = {case.name: measure(case, out / "costs") for case in cases}
    if measure_only:
        return
    with TemporaryDirectory() as temporary:
        folder = work or Path(temporary)
        studies = []
        for case in cases:
            for costs, path in tables(measured[case.name], folder).items():
                studies.append(Studied(case, costs, folder / path.stem))
                for sweep in case.sweeps(costs):
                    told = ["report=false", f"cost.table={path}", "--out", str(studies[-1].folder)]
                    specdraft("sweep", *sweep, *told)
        table = pd.DataFrame([row for study in studies for row in answers(study)])
        here = [study for study in studies if study.costs == HERE]
        rates = pd.concat([efficiencies(study) for study in here], ignore_index=True)
        siblings = pd.DataFrame([row for study in here for row in below_siblings(study)])
        if live:
            fastest = table[(table["family"] == ANY) & (table["costs"] == HERE) & (table["temperature"] == 0)]
            some = [case for case in cases if case.pair.startswith("zoo")]
            found = [decoded(case, row, live, folder) for case in some for row in rows_of(fastest, case)]
            write_atomically(out / "live.csv", to_csv(pd.DataFrame(found)))
    write_atomically(out / "answers.csv", to_csv(table))
    write_atomically(out / "efficiency.csv", to_csv(rates))
    write_atomically(out / "siblings.csv", to_csv(siblings))


def rows_of(rows: pd.DataFrame, case: Case) -> list[dict[Any, Any]]:
    """Rows of a case."""
    return rows[(rows["pair"] == case.pair) & (rows["drafter"] == case.drafter)].to_dict("records")


def decoded(case: Case, row: dict[Any, Any], prompts: int, folder: Path) -> dict[str, Any]:
    """The best chain and the best tree, by estimates, decoded live in turns on some prompts."""
    path = folder / f"{case.name}-live"
    more = [one for one in case.more if not one.startswith(("budget", "prompts.limit"))]
    for name in (row["chain"], row["tree"]):
        told = ["engine=live", "report=false", f"prompts.limit={prompts}", "repeats=3", *tree_of(name)]
        specdraft("sweep", *case.overrides, *more, *told, "name=live", "--out", str(path))
    records = pd.read_csv(path / "records.csv", dtype={"prompt_id": str})
    seconds = records.assign(s=records["new_tokens"] / records["tokens_per_s"])
    seconds = seconds.groupby(["tree", "prompt_id"])[["s"]].sum()["s"].unstack("tree")
    kinds = records.drop_duplicates("prompt_id").set_index("prompt_id")["category"].astype(str)
    chain, tree = (seconds[name].to_numpy(float) for name in ("chain", next(n for n in seconds if n != "chain")))
    ratio = speed_ratio(chain, tree, kinds[seconds.index].to_list())
    named = {name: row[name] for name in ("pair", "drafter", "chain", "tree")}
    return named | columns({"ratio": ratio}) | {"estimated": row["ratio"], "prompts": len(seconds)}


def tree_of(name: str) -> list[str]:
    """The overrides of a candidate, as `best_first-calibrated-md4 8 greedy`."""
    tree, budget, rule = name.split()
    depth = re.search(r"-md(\d+)", tree)
    plain = re.sub(r"-md\d+", "", tree).replace("calibrated-goodput", "sized")
    limits = [f"tree.max_depth={depth[1]}"] if depth else []
    return [f"tree={plain}", f"budget={budget}", f"acceptance={rule}", *limits]


if __name__ == "__main__":
    typer.run(main)
