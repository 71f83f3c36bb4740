"""The steps of a recorded prompt: the recorded path from the trace, what is off it from the models, or unknown."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from functools import cached_property
from math import nan
from typing import NoReturn

import numpy as np
import torch

from specdraft.decoding.ending import Ending
from specdraft.decoding.verifier import Verifier
from specdraft.drafters import Drawing
from specdraft.drafters.base import Annotation, Drafter, Expansion, Prefilled, Target
from specdraft.drafters.pair import Pair, load_pair
from specdraft.errors import OUT_OF_MEMORY, ModelError, PromptError, ResultsError, did_you_mean
from specdraft.prompts import Prompt, PromptSpec, load_prompts
from specdraft.replay.static import accepted_nodes
from specdraft.results.metrics import tally
from specdraft.study.combination import Combination, encode_prompts
from specdraft.study.generate import Generation
from specdraft.study.turns import read_prompts
from specdraft.traces.library import Expansions, find_traces, pair_traces
from specdraft.traces.record import Trajectory
from specdraft.traces.store import TraceStore
from specdraft.trees.draft_tree import DraftTree
from specdraft.trees.ranks import at_depth
from specdraft.trees.shapes import Plan
from specdraft.trees.states import judged_by_tokens
from specdraft.trees.step import Step
from specdraft.trees.told import target_first, target_probs_of
from specdraft.trees.topology import Topology
from specdraft.viewer.live import by_wish, target_probs
from specdraft.viewer.steps import (
    ENDED,
    Seen,
    Showing,
    Shown,
    ShownStep,
    Word,
    about,
    nothing_below,
    number,
    probability_note,
    quoted,
)


@dataclass(frozen=True)
class Recorded:
    """One prompt with what was recorded of it.

    Attributes:
        expansion: best-first trees along it, for a best-first plan.
        pair: the models; None shows what they would tell as unknown.
        notes: what to know when reading the steps.
    """

    combination: Combination
    prompt: Prompt
    prompt_ids: list[int]
    trajectory: Trajectory
    annotation: Annotation
    expansion: Expansion | None
    pair: Pair | None
    notes: tuple[str, ...] = ()

    @property
    def word(self) -> Word:
        """The text of a token."""
        tokenizer = self.combination.pair.target.tokenizer
        return lambda token: str(tokenizer.decode([token]))

    @property
    def tokens_unknown(self) -> bool:
        """Whether only the models know what was drafted off the recorded path."""
        return self.expansion is None and self.redrafter is None

    @cached_property
    def redrafter(self) -> Drafter | None:
        """The drafter, if it drafts again along the text: it needs no model."""
        files = self.combination.pair
        if not files.drafter.traits.from_tokens:
            return None
        return files.drafter.load(None, Target(files.target, _no_model))


def _no_model() -> NoReturn:
    raise AssertionError("a drafter that drafts again reads tokens only")


def find_prompt(spec: PromptSpec, prompt_id: str) -> Prompt:
    """The prompt of this id. Raises `PromptError` where there is none."""
    prompts = load_prompts(spec)
    for prompt in prompts:
        if prompt.prompt_id == prompt_id:
            return prompt
    ids = [prompt.prompt_id for prompt in prompts]
    hint = did_you_mean(prompt_id, ids).split(" (known")[0]
    raise PromptError(
        f"{prompt_id!r} is not a prompt id of {spec.label}{hint} ({len(ids)} prompts, {ids[0]!r} to {ids[-1]!r})"
    )


def recorded(
    combination: Combination,
    prompt_id: str,
    store: TraceStore,
    models: bool,
    report: Callable[[str], None] = lambda what: None,
    loaded: Pair | None = None,
) -> Recorded:
    """Fetch what was recorded of a prompt; with models, record what is missing.

    Args:
        combination: what to replay.
        prompt_id: of the combination's prompt set.
        store: where traces are kept.
        models: False loads no model: what only they could tell stays unknown.
        report: called with a line of text for what takes a while.
        loaded: the models, where they are loaded already.

    Raises:
        ConfigError: traces do not tell what the steps were.
        PromptError: there is no such prompt, or it does not fit the models' context.
        ResultsError: nothing was recorded, and there are no models.
    """
    combination.together.refuse_replayed_steps()
    prompt = find_prompt(combination.prompts, prompt_id)
    prompt_ids = encode_prompts(combination.pair, [prompt], [combination])[prompt_id]
    reason = "--no-models"
    if models:
        try:
            pair = loaded or load_pair(combination.pair)
        except ModelError as error:
            reason = f"the models cannot be loaded ({error})"
        else:
            if prompt.earlier:
                listed = load_prompts(combination.prompts)
                turns = listed[listed.index(prompt) - len(prompt.earlier) :][: 1 + len(prompt.earlier)]
                prompt_ids = read_prompts(pair, turns, [combination], store, report)[prompt_id]
            return _with_models(combination, prompt, prompt_ids, store, pair, report)
    if prompt.earlier:
        raise PromptError(
            f"prompt {prompt_id!r} waits for the target's answers to earlier turns, which take the models: {reason}"
        )
    settings = combination.settings
    draw = f"{settings.seed}/0"
    traces = find_traces(
        combination.pair,
        prompt_ids,
        combination.sampling,
        settings.max_new_tokens,
        store,
        draw,
        None if combination.pair.drafter.traits.from_tokens else combination.plan.nested,
    )
    if traces is None:
        raise ResultsError(
            f"{store.folder}: nothing is recorded of prompt {prompt_id!r} with pair={combination.pair.spec.name}, "
            f"max_new_tokens={settings.max_new_tokens} and this tree, and no model is there to record it: {reason}"
        )
    note = f"{reason}: only the recorded path is known; ? is what only the models could tell"
    return Recorded(combination, prompt, prompt_ids, *traces, None, (note,))


def _with_models(
    combination: Combination,
    prompt: Prompt,
    prompt_ids: list[int],
    store: TraceStore,
    pair: Pair,
    report: Callable[[str], None],
) -> Recorded:
    ids, ending = {prompt.prompt_id: prompt_ids}, Ending(combination.settings.max_new_tokens, pair.eos_ids)
    traces = pair_traces(pair, ids, combination.sampling, ending, store, report, f"{combination.settings.seed}/0")
    expansion = None
    if (nested := combination.plan.nested) is not None and not pair.traits.from_tokens:
        trees = Expansions(pair, ids, traces, {prompt.prompt_id: nested}, store)
        trees.record(report)
        expansion = trees.of(prompt.prompt_id)
    trajectory, annotation = traces.trajectories[prompt.prompt_id], traces.annotations[prompt.prompt_id]
    note = (
        "the recorded path comes from the trace; what is off it was drafted again, and the target read every tree again"
    )
    return Recorded(combination, prompt, prompt_ids, trajectory, annotation, expansion, pair, (note,))


def replayed_steps(recording: Recorded) -> Iterator[ShownStep]:
    """The steps that decoding takes along the recorded text, one after another.

    Raises:
        ModelError: memory ran out.
    """
    at, last = 0, len(recording.trajectory.tokens) - 1
    drafted = (
        _Drafted(recording.pair, recording.prompt_ids, recording.combination.plan, keep=recording.tokens_unknown)
        if recording.pair
        else None
    )
    while at < last:
        try:
            step = _step(recording, at, drafted)
        except torch.cuda.OutOfMemoryError as error:
            raise ModelError(OUT_OF_MEMORY) from error
        yield step
        at += len(step.accepted) + 1


class ReplayedShowing:
    """See `Showing`."""

    def __init__(self, recording: Recorded) -> None:
        reader = recording.combination.pair.reader(recording.combination.prompts.chat_template)
        self.prompt, self.word = reader.pieces(recording.prompt.text, recording.prompt.before), recording.word
        self._recording = recording
        self._shown: list[ShownStep] = []

    def steps(self) -> Iterator[ShownStep]:
        """See `Showing.steps`."""
        for step in replayed_steps(self._recording):
            self._shown.append(step)
            yield step

    def _tokens(self) -> list[int]:
        return [int(self._recording.trajectory.tokens[0]), *(token for step in self._shown for token in step.tokens)]

    def text(self) -> str:
        """See `Showing.text`."""
        return self._recording.combination.pair.decode(self._tokens(), after=self._recording.prompt_ids)

    def shown(self) -> Shown:
        """See `Showing.shown`."""
        recording = self._recording
        facts = {"prompt": f"{recording.prompt.prompt_id} ({recording.prompt.category})"} | about(recording.combination)
        return Shown(
            facts,
            self.prompt,
            self.text(),
            self._tokens()[0],
            self._shown,
            self.word,
            [*recording.notes, probability_note(recording.combination, False)],
        )

    def result(self) -> Generation:
        """See `Showing.result`."""
        steps = []
        for step in self._shown:
            drafted = [-1 if seen.token is None else seen.token for seen in step.nodes]
            steps.append(Step(DraftTree(step.topology, drafted), list(step.accepted), step.tokens, step.bonus is None))
        counted = tally(self._tokens()[0], steps, nan, nan, self._recording.combination.plan.dynamic)
        text = self._recording.combination.pair.decode(self._tokens())
        return Generation(text, self._tokens(), steps, counted)


def replayed(recording: Recorded) -> Showing:
    """A recorded prompt, step by step."""
    return ReplayedShowing(recording)


class _Drafted:
    """What the models say of the tree of one start: each start is read anew, so that nothing but the trace decides
    the path."""

    def __init__(self, pair: Pair, prompt_ids: list[int], plan: Plan, keep: bool) -> None:
        self._pair, self._prompt, self._plan = pair, prompt_ids, plan
        self._drafter = pair.drafter if keep else None
        self._verifier = Verifier.of(pair)

    def fill(self, topology: Topology, nodes: list[Seen], before: Sequence[int]) -> tuple[list[Seen], torch.Tensor]:
        """The nodes with what was unknown, and the target's logits `[n + 1, vocab]`; `before` are the tokens after
        the prompt."""
        root = nodes[0].token
        assert root is not None
        prompt = self._read(before)
        if self._drafter:
            self._drafter.begin(prompt)
            tree = self._drafter.draft(root, self._plan, Drawing(keep_probs=True))
            known = zip(nodes, tree.token_list(), tree.probability_list(), strict=True)
            nodes = [
                seen._replace(token=token, draft_prob=prob)
                if seen.token is None
                else seen._replace(draft_prob=seen.draft_prob if seen.draft_prob is not None else prob)
                for seen, token, prob in known
            ]
        tokens = [seen.token for seen in nodes if seen.token is not None]
        return nodes, self._verifier.verify(DraftTree(topology, tokens)).logits

    def _read(self, before: Sequence[int]) -> Prefilled:
        """The prompt with so much behind it, which an encoder does not read."""
        if self._pair.files.target.encodes and before:
            hidden = self._verifier.prefill(self._prompt).hidden
            self._verifier.model.prefill(before)
            return Prefilled(self._prompt, hidden, text=before)
        prefix = [*self._prompt, *before]
        return Prefilled(prefix, self._verifier.prefill(prefix).hidden)


def _step(recording: Recorded, at: int, drafted: _Drafted | None) -> ShownStep:
    """The step that starts at position `at` of the trajectory."""
    tokens, ranks = recording.trajectory.tokens.tolist(), recording.annotation.ranks
    topology, nodes = _tree(recording, at)
    if recording.redrafter:
        accepted = DraftTree(topology, [seen.token or 0 for seen in nodes]).path_along(tokens[at + 1 :])
    else:
        accepted = topology.path_to(int(accepted_nodes(topology, ranks[None, at:].astype(np.int64))[0][0, 0]))
    end = at + len(accepted)
    cut = end == len(tokens) - 1
    bonus = None if cut else tokens[end + 1]
    nodes = _along(recording, at, nodes, topology, accepted, cut)
    last, probs = accepted[-1] if accepted else 0, None
    if drafted:
        nodes, logits = drafted.fill(topology, nodes, tokens[:at])
        rows = target_probs(logits, recording.combination.sampling)
        drafts = [seen.token for seen in nodes if seen.token is not None]
        told = zip(nodes, target_probs_of(rows, topology, drafts), target_first(rows, topology, drafts), strict=True)
        nodes = [seen._replace(target_prob=prob, target_first=first) for seen, prob, first in told]
        probs = rows[last]
    why = _why(recording, nodes, topology, last, end, bonus, probs)
    return ShownStep(
        topology, nodes, accepted, bonus, None if probs is None or bonus is None else float(probs[bonus]), why
    )


def _tree(recording: Recorded, at: int) -> tuple[Topology, list[Seen]]:
    """The tree of a start, with what a trace says of all its nodes."""
    plan, root = recording.combination.plan, Seen(int(recording.trajectory.tokens[at]), "root", 1.0, recorded=True)
    if recording.redrafter:
        recording.redrafter.begin(Prefilled([*recording.prompt_ids, *recording.trajectory.tokens[:at].tolist()]))
        tree = recording.redrafter.draft(int(recording.trajectory.tokens[at]), plan)
        return tree.topology, [root, *(Seen(token, "unused", recorded=True) for token in tree.token_list()[1:])]
    if plan.topology is not None:
        return plan.topology, [root, *[Seen(None, "unused")] * plan.topology.num_nodes]
    assert plan.nested is not None
    assert recording.expansion is not None
    parent, rank, token, total = (field[at, : plan.nodes] for field in recording.expansion)
    there = (parent >= 0) & (total >= plan.nested.least)
    size = int(there.sum())
    reached = np.concatenate([[0.0], total[:size]])
    draft_probs = np.exp(reached[1:] - reached[parent[:size]])
    topology = Topology([-1, *parent[:size].tolist()], [0, *rank[:size].tolist()])
    return topology, [
        root,
        *(Seen(int(t), "unused", float(p), recorded=True) for t, p in zip(token[:size], draft_probs, strict=True)),
    ]


def _along(
    recording: Recorded, at: int, nodes: list[Seen], topology: Topology, accepted: list[int], cut: bool
) -> list[Seen]:
    """The nodes with their states, and with what the annotation says of the children of every node on the
    trajectory."""
    tokens, (_, top_ids, top_probs, *_) = recording.trajectory.tokens, recording.annotation
    known = list(nodes)
    lowest = at + 1 if recording.combination.pair.drafter.traits.by_offset else len(tokens)  # whose top_ids are theirs
    for position, node in enumerate([0, *accepted], start=at + 1):
        if position >= len(tokens):
            break
        for child in topology.children[node]:
            rank = int(topology.ranks[child])
            if known[child].token is None and rank < top_ids.shape[1] and position <= lowest:
                known[child] = Seen(
                    int(top_ids[position, rank]), "unused", float(top_probs[position, rank]), recorded=True
                )
            elif known[child].token is None and child in accepted:
                known[child] = Seen(int(tokens[position]), "unused", recorded=True)
    states = judged_by_tokens(topology, accepted, cut)
    return [seen._replace(state=state) for seen, state in zip(known, states, strict=True)]


def _why(
    recording: Recorded,
    nodes: Sequence[Seen],
    topology: Topology,
    last: int,
    end: int,
    bonus: int | None,
    probs: torch.Tensor | None,
) -> str:
    """One line on why the accepted path ended at the node `last`, which is the token at position `end`."""
    word, above = recording.word, nodes[last].token
    assert above is not None
    if bonus is None:
        return ENDED
    children = topology.children[last]
    if not children:
        return nothing_below(word, above)
    annotation = recording.annotation
    rank = int(at_depth(annotation.ranks[None], int(topology.depths[last]) + 1)[0, end + 1])
    whole = recording.combination.plan.topology
    copied = recording.redrafter is not None and (whole is None or whole.is_span)  # ranks are of look-ups at every node
    if rank < 0 or copied:
        return f"after {quoted(word, above)} the target chose {quoted(word, bonus)}, which the drafter did not propose"
    listed = rank < annotation.top_ids.shape[1] and not (last and recording.combination.pair.drafter.traits.by_offset)
    prob = f" (p={number(float(annotation.top_probs[end + 1, rank]))})" if listed else ""
    held = topology.ranks[children].tolist()
    closed = len(held) > 1 and held == list(range(held[0], held[-1] + 1))
    ranks = f"ranks {held[0]} to {held[-1]}" if closed else f"rank {', '.join(map(str, held))}"
    drafter = f", the drafter's rank {rank}{prob}, and the tree holds {ranks} there"
    wish = "wanted" if recording.combination.sampling.greedy else "drew"
    best = nodes[children[0]].token
    if probs is not None and best is not None:
        return f"after {quoted(word, above)} {by_wish(word, wish, bonus, probs, best, drafter)}"
    return f"after {quoted(word, above)} the target {wish} {quoted(word, bonus)}{drafter}"
