"""What whoever reads a study's numbers has to know of its prompts: what of them is not measured, or not as written."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any

from specdraft.drafters.pair import EncodedPrompt, PairFiles
from specdraft.models.prompt_reader import TODAY
from specdraft.prompts import Prompt


@dataclass(frozen=True)
class PromptNote:
    """One thing to know.

    Attributes:
        kind: `first turn`, `later turn`, `reply`, `date`, `cut`, `marked twice` or `missing`.
        prompts: how many prompts it is about.
        text: a line for people.
        pair: whose tokenizer or template it is; empty where it is about the prompts alone.
    """

    kind: str
    prompts: int
    text: str
    pair: str = ""

    def as_dict(self) -> dict[str, Any]:
        """For programs."""
        return asdict(self)


def notes_on_turns(prompts: Sequence[Prompt]) -> list[PromptNote]:
    """Whether prompts have more turns or messages than are measured."""
    of, several, answered = len(prompts), sum(p.turns > 1 for p in prompts), sum(p.after > 0 for p in prompts)
    turns = f"only the first turn is measured of {several} of {of} prompts, which have more"
    replies = f"{answered} of {of} prompts are measured up to their last turn of the user; what follows is left out"
    later = sum(bool(p.earlier) for p in prompts)
    context = f"{later} of {of} prompts are later turns: the target's own greedy answers stand before them"
    notes = [
        PromptNote("first turn", several, turns),
        PromptNote("later turn", later, context),
        PromptNote("reply", answered, replies),
    ]
    return [note for note in notes if note.prompts]


def notes_on_template(files: PairFiles, chat_template: str, prompts: int) -> list[PromptNote]:
    """Whether a pair's chat template puts a date into every prompt."""
    if chat_template != "auto" or not files.target.dated:
        return []
    text = f"the chat template puts the day's date into prompts, and is told {TODAY:%Y-%m-%d} ({files.label})"
    return [PromptNote("date", prompts, text, files.label)]


def notes_on_encoding(encoded: Mapping[str, EncodedPrompt], most: int | None, pair: str) -> list[PromptNote]:
    """Whether prompts were cut, or carry their marks twice, as a pair reads them.

    Args:
        encoded: by prompt id.
        most: `max_prompt_tokens`.
        pair: as people know it.
    """
    cut, twice = (sum(getattr(e, name) for e in encoded.values()) for name in ("cut", "marked_twice"))
    of, notes = f"of {len(encoded)} prompts", []
    if cut:
        text = f"{cut} {of} cut to max_prompt_tokens={most} on the left of their text ({pair})"
        notes.append(PromptNote("cut", cut, text, pair))
    if twice:
        text = (
            f"{twice} {of} hold the BOS or the chat template's marks already and get them twice ({pair}): give the "
            "plain text, or prompts.chat_template=none and no BOS"
        )
        notes.append(PromptNote("marked twice", twice, text, pair))
    return notes


def notes_on_time(timed_out: Sequence[bool]) -> list[PromptNote]:
    """Whether live texts ended because their time (`max_time_s`) was over: of each text."""
    if not (count := sum(timed_out)):
        return []
    text = f"{count} of {len(timed_out)} live texts ended early: their time (max_time_s) was over"
    return [PromptNote("timed out", count, text)]


def notes_on_rows(there: Mapping[str, int], prompts: Sequence[Prompt]) -> list[PromptNote]:
    """Whether combinations have not been run on all prompts: prompts may be added to a study, or a sweep is killed.

    Args:
        there: combination -> of how many prompts it has rows.
        prompts: the study's.
    """
    behind = [count for count in there.values() if count < len(prompts)]
    if not behind:
        return []
    text = f"{len(behind)} of {len(there)} combinations have rows of fewer prompts than these {len(prompts)}"
    return [PromptNote("missing", len(prompts) - min(behind), f"{text} ({min(behind)} at least): run them again")]
