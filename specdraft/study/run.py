"""Run a study: every combination on every prompt, resumable, into tables."""

from __future__ import annotations

import json
import re
import shlex
import time
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import pandas as pd
import torch
from filelock import FileLock, Timeout

from specdraft.acceptance import registry
from specdraft.bench.costs import pair_costs
from specdraft.decoding.decode import Ending, decode, decode_plainly
from specdraft.decoding.text_seeds import text_generator
from specdraft.decoding.verifier import Verifier
from specdraft.drafters.pair import Pair, PairFiles, load_pair
from specdraft.errors import OUT_OF_MEMORY, LosslessnessError, ModelError, ResultsError, UserError
from specdraft.losslessness.certificate import certificate, compare_greedy, near_ties
from specdraft.losslessness.enumeration import family, prove
from specdraft.losslessness.live_texts import TEXTS, Case, check_live, pick
from specdraft.prompts import Prompt
from specdraft.replay.folds import FOLDS, folds
from specdraft.replay.replayer import Replayer, dynamic_trees, most_children
from specdraft.results.comparisons import comparisons
from specdraft.results.files import FILES, cannot_write, to_csv, write_atomically
from specdraft.results.journal import Journal, Row, read_rows
from specdraft.results.manifest import describe_pair, environment
from specdraft.results.metrics import tally
from specdraft.results.tables import build_tables
from specdraft.sampling.randomness import RandomSource
from specdraft.study.combination import Combination, encode_prompts
from specdraft.study.plan import StudyPlan
from specdraft.study.progress import Progress
from specdraft.traces.library import pair_traces
from specdraft.traces.store import TraceStore, default_folder

LOCK = ".lock"
CHECKED_PROMPTS = 2  # that `certify=true` decodes live
PAIR_KEYS = ("pair", "target", "draft", "drafter", "dtype")
TORN = re.compile(
    rf"\.({'|'.join(map(re.escape, FILES))})\.\d+\.tmp"
)  # what `write_atomically` leaves behind when killed


@dataclass
class Outcome:
    """What a sweep did."""

    out: Path
    rows: int
    reused: int
    wall_s: float
    failures: list[dict[str, Any]]
    tables: dict[str, pd.DataFrame] = field(repr=False)
    certified: bool = True  # False: live text that `certify=true` looked at is not the target's


def open_study(plan: StudyPlan, out: Path, fresh: bool) -> None:
    """Make an existing directory ready: empty, or holding the same study.

    Raises:
        ResultsError: it holds another study or foreign files, or cannot be written.
    """
    for torn in [path for path in out.iterdir() if TORN.fullmatch(path.name)]:
        torn.unlink(missing_ok=True)
    present = {path.name for path in out.iterdir()} - {LOCK}
    if present and "manifest.json" not in present:
        raise ResultsError(f"{out}: holds files that are not a study's; choose another --out")
    if present and "study" not in _read_manifest(out, damaged={"study": None} if fresh else None):
        raise ResultsError(f"{out}: holds a manifest.json that is not a study's; choose another --out")
    if present and fresh:
        for name in present & set(FILES) - {"manifest.json"}:
            (out / name).unlink()
    elif present:
        there = _read_manifest(out)["study"] or {}
        if there != plan.identity:
            differing = ", ".join(key for key, value in plan.identity.items() if there.get(key) != value)
            raise ResultsError(
                f"{out}: holds another study ({differing} differ); choose another --out, or start over with --fresh"
            )
        if "journal.jsonl" not in present and "records.csv" in present:
            raise ResultsError(
                f"{out}: its journal.jsonl is gone, so it cannot be resumed; choose another --out, or start over "
                "with --fresh"
            )
        return
    write_atomically(out / "manifest.json", json.dumps({"study": plan.identity}, indent=1) + "\n")


def _read_manifest(out: Path, damaged: dict[str, Any] | None = None) -> dict[str, Any]:
    """A directory's manifest; `damaged` in place of one that cannot be read, if given."""
    try:
        manifest = json.loads((out / "manifest.json").read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        if damaged is not None:
            return damaged
        raise ResultsError(
            f"{out}/manifest.json: cannot be read; choose another --out, or start over with --fresh"
        ) from error
    return manifest if isinstance(manifest, dict) else {}


def run_study(plan: StudyPlan, out: Path, fresh: bool = False, progress: Progress | None = None) -> Outcome:
    """Run what is missing, write the tables.

    An interruption (Ctrl-C) still writes the tables of what is done.

    Raises:
        ResultsError: the directory cannot be used or written.
    """
    lock = FileLock(out / LOCK)
    try:
        out.mkdir(parents=True, exist_ok=True)
        lock.acquire(timeout=0)
    except Timeout as error:
        raise ResultsError(f"{out}: another sweep is writing here") from error
    except OSError as error:
        raise cannot_write(out, error) from error
    try:
        open_study(plan, out, fresh)
        if any(combination.engine == "replay" for combination in plan.combinations):
            TraceStore(default_folder()).check_writable()
        runner = _Runner(plan, out, progress or Progress())
        try:
            runner.run()
        finally:
            outcome = runner.finish()
        return outcome
    finally:
        (out / LOCK).unlink(missing_ok=True)
        lock.release()


def rows_there(plan: StudyPlan, out: Path) -> dict[str, int]:
    """Combination -> rows that a sweep into `out` would reuse. Reads only."""
    counts = {c.identifier: 0 for c in plan.combinations}
    if not (out / "journal.jsonl").is_file() or _read_manifest(out).get("study") != plan.identity:
        return counts
    weights = {c.identifier: c.weights for c in plan.combinations}
    for row in read_rows(out / "journal.jsonl"):
        if weights.get(row.combination) == row.weights:
            counts[row.combination] += 1
    return counts


class _Runner:
    def __init__(self, plan: StudyPlan, out: Path, progress: Progress) -> None:
        self.plan, self.out, self.progress = plan, out, progress
        self.journal = Journal(out / "journal.jsonl")
        self.failures: dict[str, dict[str, Any]] = {}
        self.earlier_failures = self._earlier_failures()
        earlier = _read_manifest(out)
        self.models: dict[str, Any] = dict(earlier.get("models", {}))
        self.started = time.perf_counter()
        self.earlier_s = float(earlier.get("wall_s", 0.0))
        self.plain: dict[Any, tuple[list[int], float]] = {}
        self.store = TraceStore(default_folder())
        self.costs: dict[str, Any] = dict(earlier.get("costs", {}))
        known = earlier.get("certificate") or {}
        self.recorded: dict[str, Any] = dict(known.get("recorded", {}))
        self.rules: dict[str, Any] = dict(known.get("rules", {}))
        self.live: dict[str, list[dict[str, Any]]] = {}
        for one in known.get("live", []):
            self.live.setdefault(one["pair"], []).append(one)
        self.reused = self.done = 0

    def run(self) -> None:
        grouped = self.plan.by_pair()
        rows_each = len(self.plan.prompts) * self.plan.settings.repeats
        self.reused = sum(
            self._has(c, p, r) for c in self.plan.combinations for p in self.plan.prompts for r in self._repeats()
        )
        self.progress.start(len(self.plan.combinations) * rows_each, self.reused)
        loaded: Pair | None = None
        for combination in (c for combinations in grouped.values() for c in combinations):
            self.journal.add_combination(combination.keys, combination.weights)
        self._prove()
        for files, combinations in grouped.items():
            due = [c for c in combinations if self._missing(c) and c.identifier not in self.failures]
            checking = self.plan.settings.certify and files.label not in self.live
            if due or checking:
                self.progress.pair(files.label)
                if loaded is not None and loaded.files.target is not files.target:
                    loaded = None  # its memory is needed
                loaded = self._load(files, loaded, due)
                if loaded is not None:
                    self.models[files.label] = describe_pair(loaded)
                    self._write_manifest()  # a killed sweep has said what it ran
                    if due:
                        self._run_pair(loaded, due)
                    if self.plan.settings.certify:
                        self._check_live(loaded, combinations)

    def _prove(self) -> None:
        """Enumerate the rules of sampled combinations on trees of their families; a rule that is not as it claims is
        not run."""
        families: dict[str, set[str]] = {}
        sampled = [c for c in self.plan.combinations if not c.sampling.greedy]
        for combination in sampled:
            families.setdefault(combination.rule.kind, set()).add(family(combination.plan))
        for kind, wanted in families.items():
            own = [c for c in sampled if c.rule.kind == kind]
            there = self.rules.get(kind, {})
            if not any(map(self._missing, own)) and wanted <= set(there.get("families", [])):
                continue
            proof = prove(own[0].rule, wanted | set(there.get("families", [])))
            self.rules[kind] = proof.as_dict()
            self.progress.note(f"enumerated acceptance={kind} on small trees")
            for combination in own if proof.lossless and not proof.exact else []:
                self._fail(combination, None, LosslessnessError(f"bug: acceptance={kind} is {proof.verdict()}"))
                self.progress.advance(self._missing(combination))

    def _check_live(self, pair: Pair, combinations: list[Combination]) -> None:
        """Compare live text of each rule with the target, on the first prompts."""
        prompt_ids = encode_prompts(pair.files, self.plan.prompts[:CHECKED_PROMPTS], combinations)
        cases = pick(Case(c.shape.label, c.plan, c.rule, c.sampling, c.settings.max_new_tokens) for c in combinations)
        try:
            found = check_live(pair, cases, prompt_ids, TEXTS, self.plan.settings.seed, self.progress.note)
        except torch.cuda.OutOfMemoryError as error:
            raise ModelError(OUT_OF_MEMORY) from error
        self.live[pair.label] = [asdict(one) for one in found]

    def _earlier_failures(self) -> dict[str, dict[str, Any]]:
        """What failed before, by combination."""
        try:
            lines = (self.out / "failures.jsonl").read_text(encoding="utf-8").splitlines()
            listed = {failure["combination"]: failure for failure in map(json.loads, lines)}
        except (OSError, ValueError, TypeError, KeyError):
            return {}
        return listed

    def _missing(self, combination: Combination, repeats: range | None = None) -> int:
        """How many of a combination's rows are still to do."""
        return sum(not self._has(combination, p, r) for p in self.plan.prompts for r in repeats or self._repeats())

    def _repeats(self) -> range:
        return range(self.plan.settings.repeats)

    def _has(self, combination: Combination, prompt: Prompt, repeat: int) -> bool:
        row = self.journal.rows.get((combination.identifier, combination.weights, prompt.prompt_id, repeat))
        return row is not None and (row.steps is not None or not self.plan.settings.output.steps)

    def _load(self, files: PairFiles, loaded: Pair | None, due: list[Combination]) -> Pair | None:
        try:
            return load_pair(files, target_of=loaded)
        except Exception as error:  # another pair may still load
            for combination in due:
                self._fail(combination, None, error)
                self.progress.advance(self._missing(combination))
            return None

    def _run_pair(self, pair: Pair, due: list[Combination]) -> None:
        """Prompt by prompt, all combinations on each, so that the time left can be told from the time spent."""
        prompt_ids = encode_prompts(pair.files, self.plan.prompts, due)
        self._replay_pair(pair, [c for c in due if c.engine == "replay"], prompt_ids)
        due = [c for c in due if c.engine == "live"]
        runs: dict[Any, list[Combination]] = {}
        for combination in due:
            runs.setdefault(combination.run_key, []).append(combination)
        for prompt in self.plan.prompts:
            for repeat in self._repeats():
                for twins in runs.values():
                    missing = [c for c in twins if not self._has(c, prompt, repeat)]
                    if missing and missing[0].identifier not in self.failures:
                        self._run_one(pair, missing, prompt, prompt_ids[prompt.prompt_id], repeat)
                    self.progress.advance(len(missing))

    def _replay_pair(self, pair: Pair, due: list[Combination], prompt_ids: dict[str, list[int]]) -> None:
        """Record what is not recorded, then replay every combination from it."""
        groups: dict[Any, list[Combination]] = {}
        for combination in due:
            groups.setdefault((repr(combination.sampling), combination.settings.max_new_tokens), []).append(combination)
        for group in groups.values():  # each sampled text is a trajectory of its own; all greedy ones are equal
            for repeats in (
                [self._repeats()] if group[0].sampling.greedy else [range(r, r + 1) for r in self._repeats()]
            ):
                self._replay_group(pair, group, prompt_ids, repeats)

    def _replay_group(
        self, pair: Pair, group: list[Combination], prompt_ids: dict[str, list[int]], repeats: range
    ) -> None:
        try:
            replayer = self._replayer(pair, group, prompt_ids, repeats[0])
        except (ResultsError, KeyboardInterrupt):
            raise
        except Exception as error:  # whatever goes wrong in one pair must not stop the others
            for combination in group:
                self._fail(combination, None, error)
                self.progress.advance(self._missing(combination, repeats))
            return
        for combination in group:
            self._replay_one(replayer, combination, repeats)

    def _replayer(
        self, pair: Pair, group: list[Combination], prompt_ids: dict[str, list[int]], repeat: int
    ) -> Replayer:
        ending, sampling = Ending(group[0].settings.max_new_tokens, pair.eos_ids), group[0].sampling
        draw = f"{self.plan.settings.seed}/{repeat}"
        children = most_children(c.plan for c in group if c.rule.replay != "rank")
        traces = pair_traces(pair, prompt_ids, sampling, ending, self.store, self.progress.note, draw, children)
        dynamic = dynamic_trees(pair, prompt_ids, traces, [c.plan for c in group], self.store, self.progress.note)
        if sampling.greedy:
            self.recorded[pair.label] = near_ties(traces.trajectories.values(), pair.target_check)
        costs = pair_costs(pair, self.store, self.progress.note)
        self.costs[pair.label] = costs.as_dict()
        return Replayer(traces, self.plan.prompts, costs, self.plan.settings.seed, dynamic)

    def _replay_one(self, replayer: Replayer, combination: Combination, repeats: range) -> None:
        missing = self._missing(combination, repeats)
        try:
            tallies, steps = replayer.run(combination.plan, combination.rule, self.plan.settings.output.steps)
        except ResultsError:
            raise
        except Exception as error:  # whatever goes wrong in one combination must not stop the others
            self._fail(combination, None, error)
        else:
            for prompt, counted, listed in zip(self.plan.prompts, tallies, steps, strict=True):
                for repeat in repeats:
                    if not self._has(combination, prompt, repeat):
                        row = (prompt.prompt_id, prompt.category, repeat, counted, None, listed)
                        self.journal.add_row(Row(combination.identifier, combination.weights, *row))
                        self.done += 1
        self.progress.advance(missing)

    def _run_one(self, pair: Pair, twins: list[Combination], prompt: Prompt, ids: list[int], repeat: int) -> None:
        try:
            row = self._decode(pair, twins[0], prompt, ids, repeat)
        except (ResultsError, KeyboardInterrupt):
            raise
        except Exception as error:  # whatever goes wrong in one combination must not stop the others
            for combination in twins:
                self._fail(combination, prompt, error)
            return
        for combination in twins:
            self.journal.add_row(Row(combination.identifier, combination.weights, *row))
            self.done += 1

    def _decode(
        self, pair: Pair, combination: Combination, prompt: Prompt, ids: list[int], repeat: int
    ) -> tuple[Any, ...]:
        ending = Ending(combination.settings.max_new_tokens, pair.eos_ids)
        verifier = Verifier.of(pair)
        plain, plain_s = self._decode_plainly(pair, combination, verifier, prompt, ids, ending, repeat)
        started = time.perf_counter()
        source = self._source(pair, combination, ids, repeat, pair.files.weights[1], repr(combination.run_key))
        setting = (combination.plan, combination.rule, combination.sampling)
        decoding = decode(verifier, pair.drafter, *setting, ids, ending, source).finish()
        wall_s = time.perf_counter() - started
        greedy = combination.sampling.greedy and combination.rule.lossless
        tie = compare_greedy(pair.target, pair.target_check, ids, plain, decoding.tokens) if greedy else None
        counted = tally(decoding.first, decoding.steps, wall_s, plain_s, combination.plan.dynamic)
        listed = None
        if self.plan.settings.output.steps:
            listed = [
                [i, s.tree.num_nodes, s.accepted_tokens, s.bonus_tokens, int(s.cut)]
                for i, s in enumerate(decoding.steps)
            ]
        return prompt.prompt_id, prompt.category, repeat, counted, tie, listed

    def _decode_plainly(
        self,
        pair: Pair,
        combination: Combination,
        verifier: Verifier,
        prompt: Prompt,
        ids: list[int],
        ending: Ending,
        repeat: int,
    ) -> tuple[list[int], float]:
        """The target alone on this prompt, once for all pairs that share the target."""
        target = pair.files.target
        key = (
            target.weights_hash,
            repr(target.spec),
            pair.target.vocab,
            tuple(ids),
            ending,
            repr(combination.sampling),
            repeat,
        )
        if key not in self.plain:
            started = time.perf_counter()
            tokens = decode_plainly(
                verifier, combination.sampling, ids, ending, self._source(pair, combination, ids, repeat)
            )
            self.plain[key] = tokens, time.perf_counter() - started
        return self.plain[key]

    def _source(self, pair: Pair, combination: Combination, ids: list[int], repeat: int, *more: str) -> RandomSource:
        """The randomness of one decoded text; live decoding adds the draft model and what is decoded with."""
        return RandomSource(
            text_generator(pair, combination.sampling, ids, f"{self.plan.settings.seed}/{repeat}", *more)
        )

    def _fail(self, combination: Combination, prompt: Prompt | None, error: Exception) -> None:
        if isinstance(error, torch.cuda.OutOfMemoryError):
            torch.cuda.empty_cache()
            text = OUT_OF_MEMORY
        else:
            first = next(iter(str(error).strip().splitlines()), "")
            text = str(error) if isinstance(error, UserError) else f"{type(error).__name__}: {first}"
        where = {"combination": combination.identifier, "prompt_id": prompt.prompt_id if prompt else None}
        self.failures[combination.identifier] = where | {"error": text, "overrides": shlex.join(combination.overrides)}
        self.progress.failed(combination.describe(), text)

    def finish(self) -> Outcome:
        """Write every table from the journal: the union of this run and earlier ones."""
        self.journal.close()
        rows = self._current_rows()
        tables = build_tables(rows, self.journal.combinations, self.plan.settings.seed)
        tables["comparisons.csv"] = comparisons(tables["records.csv"], self.plan.settings.seed)
        for name, table in tables.items():
            write_atomically(self.out / name, to_csv(table))
        write_atomically(self.out / "failures.jsonl", "".join(json.dumps(f) + "\n" for f in self._all_failures()))
        write_atomically(self.out / "config.yaml", self.plan.config)
        self._write_manifest()
        certified = all(
            one["passed"] or not registry()[one["rule"]].lossless for checked in self.live.values() for one in checked
        )
        return Outcome(
            self.out, self.done, self.reused, self._wall_s(), list(self.failures.values()), tables, certified
        )

    def _all_failures(self) -> list[dict[str, Any]]:
        """This run's failures, and earlier ones of combinations that have not been done since."""
        done = {c.identifier for c in self.plan.combinations if not self._missing(c)}
        return list(
            ({name: f for name, f in self.earlier_failures.items() if name not in done} | self.failures).values()
        )

    def _current_rows(self) -> list[Row]:
        """The journal's rows, those of replaced weights and of failed combinations left out."""
        failed = {failure["combination"] for failure in self._all_failures()}
        now = {tuple(c.keys[key] for key in PAIR_KEYS): c.weights for c in self.plan.combinations}

        def current(row: Row) -> bool:
            keys = self.journal.combinations[row.combination]
            return row.weights == now.get(tuple(keys[key] for key in PAIR_KEYS), self.journal.weights[row.combination])

        return [row for row in self.journal.rows.values() if row.combination not in failed and current(row)]

    def _folds(self) -> dict[str, int]:
        """The half that each prompt is in; it is scored with the trees of the other one."""
        prompts = self.plan.prompts
        numbers = folds([p.category for p in prompts], self.plan.settings.seed).tolist()
        return dict(zip((p.prompt_id for p in prompts), numbers, strict=True))

    def _wall_s(self) -> float:
        return self.earlier_s + time.perf_counter() - self.started

    def _write_manifest(self) -> None:
        write_atomically(self.out / "manifest.json", json.dumps(self._manifest(self._current_rows()), indent=1) + "\n")

    def _manifest(self, rows: list[Row]) -> dict[str, Any]:
        failures = self._all_failures()
        bugs = [f for f in failures if f["error"].startswith("bug:")]
        live = [one for checked in self.live.values() for one in checked]
        return {
            "study": self.plan.identity,
            **environment(),
            "models": self.models,
            "costs": self.costs,
            "prompts": len(self.plan.prompts),
            "combinations": len({row.combination for row in rows}),
            "skipped": [{"overrides": what, "reason": why} for what, why in self.plan.skipped],
            "failed": len(failures),
            "wall_s": round(self._wall_s(), 2),
            "fitted_trees": {"folds": FOLDS, "seed": self.plan.settings.seed, "fold_of_each_prompt": self._folds()},
            "intervals": "95 %, over prompts (see README: Intervals)",
            "certificate": certificate(rows, self.journal.combinations, self.recorded, bugs, self.rules, live),
        }
