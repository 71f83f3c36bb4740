"""What `specdraft tune` prints."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import asdict
from typing import TYPE_CHECKING, Any

from rich.box import SIMPLE_HEAD
from rich.table import Table
from rich.text import Text

from specdraft.errors import plain_text
from specdraft.results.intervals import Interval
from specdraft.study.tuning.answer import BreakEven, break_even
from specdraft.theory.formulas import alpha_for

if TYPE_CHECKING:
    from rich.console import RenderableType

    from specdraft.study.tuning.answer import Candidate, Tuned

MOST = 12  # candidates that are listed
NAMES = ("model", "algorithm", "method", "decoding_type")


def answer(tuned: Tuned) -> list[str]:
    """The answer in sentences."""
    best, told = tuned.best, words(tuned.best.told)
    told = f"{best.pair}: {told}" if tuned.several else told
    gain = f"{tuned.speedup} times plain decoding, estimated on the prompts that did not choose it"
    if tuned.verdict == "do not speculate":
        lines = [f"do not speculate: the best that {tuned.engine} can be told, {told}, is {gain}"]
    elif tuned.verdict == "open":
        lines = [f"{told}: {gain}; these {tuned.prompts} prompts do not tell whether speculation pays"]
    else:
        lines = [f"{told}: {gain}"]
    needed = f"a step must yield {tuned.needed_tokens:.2f} tokens to pay; it yields {best.block_efficiency}"
    if (rate := needed_acceptance(tuned)) is not None:
        needed += f" (a chain of {best.depth}: {rate:.2f} of its tokens accepted)"
    lines.append(needed)
    if tuned.tree_over_chain is not None and tuned.best_chain and tuned.best_tree:
        ratio = tuned.tree_over_chain
        pays = "pays" if ratio.low > 1 else "does not pay" if ratio.high < 1 else "may or may not pay"
        both = f"{words(tuned.best_tree.told)} against {words(tuned.best_chain.told)}"
        lines.append(f"a tree {pays} against the best chain at equal time: {ratio} times its speed ({both})")
    if tuned.best_choices is not None:
        choices, speedup = tuned.best_choices
        lines.append(
            f"versions that take a list of rank paths: one of {choices.nodes} nodes is {speedup} times plain decoding"
        )
    if (at := break_even(tuned.points)) is not None:
        lines.append(_of_batches(at))
    lines += [f"left out: {why}" for why in tuned.left_out]
    if best.setting.threshold:
        lines.append("where scikit-learn is installed, transformers moves this threshold while it decodes")
    for category, (other, ratio) in tuned.by_category.items():
        lines.append(f"{category}: {words(other.told)} is {ratio} times as fast there")
    return lines


def needed_acceptance(tuned: Tuned) -> float | None:
    """The rate at which a chain as deep as the best one pays, each token accepted independently; None of a tree, and
    where no rate does."""
    if not tuned.best.setting.chain or not 1 <= tuned.needed_tokens <= tuned.best.depth + 1:
        return None
    return alpha_for(tuned.needed_tokens, tuned.best.depth)


def _of_batches(at: BreakEven) -> str:
    where = f"with {at.context} tokens of context speculation"
    if at.stops is None:
        return f"{where} pays at every batch that was looked at, up to {at.pays}"
    if at.pays is None:
        return f"{where} does not pay at a batch of {at.stops}"
    return f"{where} pays up to a batch of {at.pays} of those that were looked at, and no longer at {at.stops}"


def words(told: dict[str, Any]) -> str:
    """Settings without what names the drafter, and without what all their names begin with."""
    some = {name: value for name, value in told.items()
            if not isinstance(value, list) and not any(word in name for word in NAMES)}  # fmt: skip
    return " ".join(f"{name.removeprefix('speculative-')}={value}" for name, value in some.items())


def short_names(candidates: Sequence[Candidate]) -> dict[str, str]:
    """Identifier -> settings without those that all candidates are told alike."""
    alike = {
        name for name, value in candidates[0].told.items() if all(one.told.get(name) == value for one in candidates)
    }
    if len(candidates) < 2:
        alike = set()
    several = len({one.pair for one in candidates}) > 1
    return {one.identifier: (f"{one.pair}: " if several else "")
            + words({name: value for name, value in one.told.items() if name not in alike})
            for one in candidates}  # fmt: skip


def tune_tables(tuned: Tuned) -> Iterator[RenderableType]:
    """The answer, the fastest candidates, and the acceptance by depth."""
    for number, line in enumerate(answer(tuned)):
        yield Text(plain_text(line), style="bold" if number == 0 else "")
    table = Table(box=SIMPLE_HEAD, title=f"the fastest of {len(tuned.candidates)}, on all prompts")
    for name, side in (("setting", "left"), ("nodes", "right"), ("tokens per step", "right"), ("speed-up", "right")):
        table.add_column(name, justify="left" if side == "left" else "right", overflow="fold")
    names = short_names(tuned.candidates)
    for one in tuned.candidates[:MOST]:
        table.add_row(plain_text(names[one.identifier]), str(one.nodes), str(one.block_efficiency), str(one.speedup))
    yield table
    if len(tuned.points) > 1:
        points = Table(box=SIMPLE_HEAD, title="by context and batch, on the prompts that did not choose")
        for name in ("context", "batch", "setting", "speed-up", ""):
            points.add_column(name, justify="right" if name in ("context", "batch", "speed-up") else "left")
        for at in tuned.points:
            told = plain_text(words(at.best.told))
            points.add_row(str(at.point.context), str(at.point.batch), told, str(at.speedup), at.verdict)
        yield points
    if tuned.rates:
        depths = Table(box=SIMPLE_HEAD, title="acceptance by depth of the chosen one")
        for name in ("depth", "so many are accepted", "given those before"):
            depths.add_column(name, justify="right")
        for depth, (rate, given) in enumerate(zip(tuned.rates, tuned.conditional, strict=True), start=1):
            depths.add_row(str(depth), str(rate), f"{given:.2f}")
        yield depths


def as_data(tuned: Tuned) -> dict[str, Any]:
    """For programs."""

    def ratio(value: Interval | None) -> Any:
        return None if value is None else value.as_dict()

    def candidate(one: Candidate | None) -> Any:
        if one is None:
            return None
        values = {"told": one.told, "pair": one.pair, "nodes": one.nodes, "depth": one.depth}
        return values | {"block_efficiency": ratio(one.block_efficiency), "est_speedup": ratio(one.speedup)}

    return {
        "engine": tuned.engine,
        "verdict": tuned.verdict,
        "answer": answer(tuned),
        "best": candidate(tuned.best),
        "speedup": ratio(tuned.speedup),
        "tree_over_chain": ratio(tuned.tree_over_chain),
        "best_chain": candidate(tuned.best_chain),
        "best_tree": candidate(tuned.best_tree),
        "needed_tokens": tuned.needed_tokens,
        "needed_acceptance": needed_acceptance(tuned),
        "best_choices": candidate(tuned.best_choices[0]) | {"speedup": ratio(tuned.best_choices[1])}
        if tuned.best_choices
        else None,
        "points": [
            {**at.point._asdict(), "verdict": at.verdict, "best": candidate(at.best), "speedup": ratio(at.speedup)}
            for at in tuned.points
        ],
        "break_even": asdict(at) if (at := break_even(tuned.points)) else None,
        "left_out": tuned.left_out,
        "by_category": {name: candidate(one) | {"ratio": ratio(r)} for name, (one, r) in tuned.by_category.items()},
        "acceptance_rates": [ratio(rate) for rate in tuned.rates],
        "conditional_rates": tuned.conditional,
        "candidates": [candidate(one) for one in tuned.candidates],
        "prompts": tuned.prompts,
        "files": sorted(tuned.files),
    }
