"""Which stages a study has, and a first guess of how long they take: from parameters and tokens, before any rate."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import replace
from math import prod
from statistics import fmean
from typing import NamedTuple

import psutil

from specdraft.bench.kept import LEAST_S
from specdraft.config import Settings
from specdraft.drafters.pair import PairFiles
from specdraft.errors import ModelError
from specdraft.models.files import ModelFiles
from specdraft.models.placement import device_type
from specdraft.replay.replayer import largest_nested
from specdraft.study.combination import Combination, SameTexts, by_texts
from specdraft.study.executors import units
from specdraft.study.executors.shares import share_of
from specdraft.study.plan import StudyPlan
from specdraft.study.proofs import sampled_rules
from specdraft.study.timeline import ROWS, Stage

OPERATIONS_S = {"cpu": 2e10}  # of arithmetic a second on a device, roughly; once models run, their own speed counts
OTHER_OPERATIONS_S = 1e13
BEGIN_S = 8.0  # for a worker to be there
CALL_S = 4e-3  # of a token that is decoded alone, however small the model
PARAMETERS_S, LOAD_S = 5e7, 0.5  # loaded and checked a second; and seconds besides
CHARACTERS = 4  # of a prompt in one token, roughly
SERVED_TOKEN_S = 0.02  # of a text behind a server, several side by side
EXPANDED = 0.5  # of the nodes of best-first trees, how many are fed to the drafter
MEASURED = 1500  # tokens through both models are worth the measuring of costs
REPLAYED_S, WRITTEN_S, SUMMED_S = 2e-4, 2e-5, 1e-3  # of a row, of a row in the tables, of a combination there
PROOF_S, CHECK_S, REPORT_S = 2.0, 20.0, 8.0


class Size(NamedTuple):
    """What a pair's stages are guessed from.

    Attributes:
        target_s, draft_s: seconds of one token through the target and through the drafter.
        prompts: how many; `prompt_tokens` of each, the mean.
    """

    target_s: float
    draft_s: float
    prompts: int
    prompt_tokens: float


def forecast(
    plan: StudyPlan, due: Mapping[PairFiles, Sequence[Combination]], missing: Callable[[Combination], int]
) -> list[Stage]:
    """The stages of what is due of each pair, in their order, and of what follows all pairs.

    Args:
        plan: the study.
        due: what runs of each pair.
        missing: how many rows of a combination are still to do.
    """
    stages = _proofs(combination for combinations in due.values() for combination in combinations)
    texts: set[tuple[str, ...]] = set()  # that are recorded: pairs with one target share them
    loaded: set[int] = set()
    for files, combinations in due.items():
        if not combinations:
            continue
        size = _size(plan, files)
        new = [model for model in files.here if id(model) not in loaded]
        loading = [_loading(files, model) for model in new]
        stages += loading if plan.settings.executor == "local" else [_beginning(files, loading, first=not loaded)]
        loaded |= set(map(id, new))
        for engine, staged in (("replay", _replay_stages), ("live", _live_stages)):
            if chosen := [combination for combination in combinations if combination.engine == engine]:
                stages += _by_workers(plan.settings, size, [*staged(plan, files, size, chosen, texts, missing)])
        if plan.settings.certify:
            stages.append(Stage(files.label, "certify", "checks", 1, CHECK_S))
    rows = len(plan.combinations) * len(plan.prompts) * plan.settings.repeats
    stages.append(Stage("", "tables", ROWS, rows, rows * WRITTEN_S + len(plan.combinations) * SUMMED_S))
    stages += [Stage("", "report", "pages", 1, REPORT_S)] if plan.settings.report else []
    return [replace(stage, guess_s=stage.guess_s * _crowding()) for stage in stages]


def _beginning(files: PairFiles, loading: list[Stage], first: bool) -> Stage:
    """A worker begins, before the first pair, and reads the pair's models."""
    seconds = sum(stage.guess_s for stage in loading) + first * BEGIN_S
    return Stage(files.label, "load", "models", 1, seconds, by_models=True)


def _by_workers(settings: Settings, size: Size, stages: list[Stage]) -> list[Stage]:
    """What one engine does of a pair, in the stages in which it is done: workers have units of three kinds."""
    if settings.executor == "local":
        return stages
    side_by_side, pair = _workers(settings), stages[0].pair
    costs = [replace(stage, unit="units") for stage in stages if stage.name == units.COSTS]
    rows = [stage for stage in stages if stage.unit == ROWS]
    record_s = sum(stage.guess_s for stage in stages if stage.unit != ROWS and stage.name != units.COSTS) / side_by_side
    rows_s = sum(stage.guess_s for stage in rows) / side_by_side
    due = sum(stage.due for stage in rows)
    recorded = [Stage(pair, units.RECORD, "prompts", size.prompts, record_s, by_models=True)] if record_s else []
    return [*recorded, *costs, Stage(pair, units.ROWS, ROWS, due, rows_s, by_models=any(s.by_models for s in rows))]


def _workers(settings: Settings) -> int:
    """How many of them get on at once, as far as that is known before a cluster answers."""
    if settings.resources.address is not None:
        return settings.resources.workers or 1
    share = share_of(settings)
    return share.workers if share.gpus else min(share.workers, psutil.cpu_count(logical=False) or 1)


def _loading(files: PairFiles, model: ModelFiles) -> Stage:
    return Stage(files.label, "load", "models", 1, LOAD_S + _parameters(model) / PARAMETERS_S, by_models=True)


def _crowding() -> float:
    """How much longer everything takes because others use the processor too."""
    return max(1.0, psutil.getloadavg()[0] / (psutil.cpu_count() or 1))


def _proofs(combinations: Iterable[Combination]) -> list[Stage]:
    rules = len(sampled_rules(combinations))
    return [Stage("", "prove", "rules", rules, rules * PROOF_S)] if rules else []


def _size(plan: StudyPlan, files: PairFiles) -> Size:
    seconds = {role: _token_s(model) for role, model in (("target", files.target), ("draft", files.draft)) if model}
    tokens = fmean(len(prompt.text) for prompt in plan.prompts) / CHARACTERS
    limit = plan.settings.max_prompt_tokens or tokens
    return Size(seconds["target"], seconds.get("draft", 0.0), len(plan.prompts), min(tokens, limit))


def _token_s(files: ModelFiles) -> float:
    if files.spec.served:
        return SERVED_TOKEN_S
    return 2 * _parameters(files) / OPERATIONS_S.get(device_type(files.spec), OTHER_OPERATIONS_S)


def _parameters(files: ModelFiles) -> float:
    try:
        return float(sum(map(prod, files.shapes.values())))
    except ModelError:  # whoever loads it says why
        return 0.0


def _replay_stages(
    plan: StudyPlan,
    files: PairFiles,
    size: Size,
    combinations: Sequence[Combination],
    texts: set[tuple[str, ...]],
    missing: Callable[[Combination], int],
) -> Iterator[Stage]:
    costs = plan.settings.cost.measure != "off" and plan.settings.cost.table is None and not files.target.spec.served
    for group in by_texts(combinations, plan.settings.repeats):
        first = group.combinations[0]
        yield from _recording(files, size, group, texts)
        if any(combination.shape.fits_scores for combination in group.combinations):
            seconds = size.prompts * (size.prompt_tokens + first.settings.max_new_tokens) * size.draft_s
            yield Stage(files.label, "calibrate", "prompts", size.prompts, seconds, by_models=True)
        yield from _expanding(files, size, group.combinations)
        if pruned := [combination for combination in group.combinations if combination.pruning.prunes]:
            nodes = max(combination.limits.nodes for combination in pruned)
            seconds = size.prompts * first.settings.max_new_tokens * nodes * EXPANDED * size.draft_s
            yield Stage(files.label, "score", "prompts", size.prompts, seconds, by_models=True)
        if not first.sampling.greedy and files.drafter.traits.probabilities:
            tokens = size.prompts * (size.prompt_tokens + first.settings.max_new_tokens)
            seconds = tokens * (size.target_s + size.draft_s)
            yield Stage(files.label, "judge", "prompts", size.prompts, seconds, by_models=True)
        if costs:
            seconds = MEASURED * (size.target_s + size.draft_s)
            yield Stage(files.label, "costs", "timings", 1, seconds, by_models=True, most_s=LEAST_S)
            costs = False
        rows = sum(map(missing, group.combinations)) * len(group.repeats) / plan.settings.repeats
        yield Stage(files.label, "replay", ROWS, rows, rows * REPLAYED_S)


def _live_stages(
    plan: StudyPlan,
    files: PairFiles,
    size: Size,
    combinations: Sequence[Combination],
    texts: set[tuple[str, ...]],
    missing: Callable[[Combination], int],
) -> Iterator[Stage]:
    """Fitted trees record their texts while rows are decoded."""
    due = {combination.identifier: missing(combination) for combination in combinations}
    token_s = max(CALL_S, size.target_s + size.draft_s)
    seconds = sum(due[c.identifier] * c.settings.max_new_tokens * token_s for c in combinations)
    yield Stage(files.label, "decode", ROWS, sum(due.values()), seconds, by_models=True)
    earlier = files.drafter.traits.earlier
    read = (c for c in combinations if c.shape.fitted or c.shape.fits_scores or earlier)
    for group in by_texts(read, plan.settings.repeats):
        yield from _recording(files, size, group, texts)


def _recording(files: PairFiles, size: Size, group: SameTexts, texts: set[tuple[str, ...]]) -> Iterator[Stage]:
    first = group.combinations[0]
    new = first.settings.max_new_tokens
    tokens = size.prompts * (size.prompt_tokens + new)
    text = (repr(files.target.spec), repr(first.sampling), str(new), str(group.repeats[0]))
    if text not in texts:
        texts.add(text)
        yield Stage(files.label, "record", "tokens", size.prompts * new, tokens * size.target_s, by_models=True)
    yield Stage(files.label, "annotate", "prompts", size.prompts, tokens * size.draft_s, by_models=True)


def _expanding(files: PairFiles, size: Size, group: Sequence[Combination]) -> Iterator[Stage]:
    """One stage for all best-first trees that share their limits, at the largest budget."""
    traits = files.drafter.traits
    if traits.from_tokens:
        return
    for plan in largest_nested(combination.together.plan for combination in group).values():
        fed = 1 if traits.by_offset and not traits.drifts else plan.nodes * EXPANDED
        tokens = size.prompts * group[0].settings.max_new_tokens * fed
        yield Stage(files.label, "expand", "prompts", size.prompts, tokens * size.draft_s, by_models=True)
