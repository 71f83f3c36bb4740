"""What happens in a verification step, in four sentences: draft, verify, accept, bonus."""

from __future__ import annotations

from collections.abc import Sequence

from specdraft.trees.step_graph import FIRST_DRAFT, FIRST_TARGET
from specdraft.trees.step_picture import Phase
from specdraft.viewer.steps import ShownStep, Word, number, quoted

MOST_QUOTED = 6  # tokens of a path in a sentence


def captions(step: ShownStep, word: Word) -> dict[Phase, str]:
    """What each phase of a step does."""
    return {
        "draft": _draft(step, word),
        "verify": _verify(step),
        "accept": _accept(step, word),
        "bonus": _bonus(step, word),
    }


def tokens_per_pass(steps: Sequence[ShownStep]) -> list[float]:
    """After each step, the tokens per forward pass of the target so far."""
    counts, emitted = [], 0
    for passes, step in enumerate(steps, start=1):
        emitted += len(step.tokens)
        counts.append(emitted / passes)
    return counts


def _draft(step: ShownStep, word: Word) -> str:
    size, root = step.topology.num_nodes, step.nodes[0].token
    after = "" if root is None else f" after {quoted(word, root)}"
    if not size:
        return f"the drafter proposes nothing{after}"
    proposal = f"the drafter proposes {_count(size, 'token')} on {_count(step.topology.depth, 'level')}{after}"
    first = f"; its first choice {FIRST_DRAFT} is {_path(step, step.best_path, word)}" if step.best_path else ""
    return proposal + first


def _verify(step: ShownStep) -> str:
    size = step.topology.num_nodes
    if not size:
        return "the target reads on in one pass"
    read = f"the target reads {'it' if size == 1 else 'both' if size == 2 else f'all {size}'} in one pass"
    known = [seen.target_first for seen in step.nodes[1:] if seen.target_first is not None]
    if len(known) < size:
        return read
    agreed = sum(known)
    return (
        f"{read}; {agreed or 'none'} of them {'is' if agreed < 2 else 'are'} its own first choice there {FIRST_TARGET}"
    )


def _accept(step: ShownStep, word: Word) -> str:
    levels = _count(step.topology.depth, "level")
    kept = f": {_path(step, step.accepted, word)}" if step.accepted else ""
    return f"{len(step.accepted)} of {levels} accepted{kept}; {step.why}"


def _bonus(step: ShownStep, word: Word) -> str:
    emitted = f"this pass yields {_count(len(step.tokens), 'token')}"
    if step.bonus is None:
        return f"none, the text ends; {emitted}"
    prob = "" if step.bonus_prob is None else f" (p={number(step.bonus_prob)})"
    return f"the target's own next token {quoted(word, step.bonus)}{prob}; {emitted}"


def _path(step: ShownStep, path: Sequence[int], word: Word) -> str:
    tokens = [step.nodes[node].token for node in path]
    texts = ["?" if token is None else quoted(word, token) for token in tokens[:MOST_QUOTED]]
    return " ".join([*texts, *(["\u2026"] if len(tokens) > MOST_QUOTED else [])])


def _count(count: int, what: str) -> str:
    return f"{count} {what}{'s' * (count != 1)}"
