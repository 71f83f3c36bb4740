"""Prompt sets that others measure with, each read from a copy of its file as it is published.

A set is a function from a row to what it asks, and the keys that tell its rows from those of other sets. To add one,
write both, name it in `SETS`, and put a YAML of the same name in `configs/prompts/`.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

from specdraft.errors import PromptError
from specdraft.prompts.row_files import read_rows
from specdraft.prompts.rows import Prompt, is_text

MT_BENCH = ("writing", "roleplay", "reasoning", "math", "coding", "extraction", "stem", "humanities")  # its categories
PLACEHOLDER = "FULL BENCHMARK DATA SHOULD BE FETCHED FROM THE SOURCE"  # what SPEED-Bench has for texts of others
HUMAN = ("human", "user")
Of = Mapping[str, Any]


class Asked(NamedTuple):
    """What a row asks, in one or more turns, as the row has them; None: there is nothing to ask, and it is left out."""

    turns: Any
    prompt_id: Any = None
    category: Any = None


class PublicSet(NamedTuple):
    """One set.

    Attributes:
        file: what it is published as.
        needs: keys that every row has, the first missing one is named; `a|b`: either of them.
        ask: what a row asks.
        foreign: why a row with these keys is not of this set, or None.
    """

    file: str
    needs: tuple[str, ...]
    ask: Callable[[Of], Asked]
    foreign: Callable[[Of], str | None] = lambda row: None


def _in_turns(row: Of) -> Asked:
    turns = next(row[key] for key in ("turns", "prompt") if row.get(key) is not None)
    return Asked(turns, row.get("question_id", row.get("prompt_id")), row.get("category"))


def _not_of_spec_bench(row: Of) -> str | None:
    return "has 'sub_category'" if "sub_category" in row else None


def _not_of_mt_bench(row: Of) -> str | None:
    if row["category"] not in MT_BENCH:
        return f"has category {row['category']!r}, which is none of its eight"
    return _not_of_spec_bench(row)


def _not_of_speed_bench(row: Of) -> str | None:
    return None if "sub_category" in row else "has no 'sub_category'"


def _speed_bench(row: Of) -> Asked:
    """NVIDIA's two programs that fill its placeholders write `turns`, or `messages` of a user."""
    turns = row.get("turns")
    if turns is None and isinstance(row["messages"], list):
        turns = [message.get("content") if isinstance(message, dict) else message for message in row["messages"]]
    return Asked(turns or [], row["question_id"], row["category"])


def _sharegpt(row: Of) -> Asked:
    said = row["conversations"]
    if not isinstance(said, list) or not all(isinstance(one, dict) for one in said):
        return Asked([None])
    turns = [one.get("value") for one in said if one.get("from") in HUMAN]
    return Asked([turn for turn in turns if turn != ""] or None, row.get("id"))


def _alpaca(row: Of) -> Asked:
    parts = [row["instruction"], row.get("input")]
    if not isinstance(parts[0], str):
        return Asked([parts[0]])
    return Asked(["\n\n".join(part for part in parts if part and isinstance(part, str))], None, row.get("dataset"))


SETS = {
    "spec-bench": PublicSet("question.jsonl", ("question_id", "category", "turns"), _in_turns, _not_of_spec_bench),
    "mt-bench": PublicSet(
        "question.jsonl", ("question_id|prompt_id", "category", "turns|prompt"), _in_turns, _not_of_mt_bench
    ),
    "gsm8k": PublicSet("test.jsonl", ("question", "answer"), lambda row: Asked([row["question"]])),
    "humaneval": PublicSet(
        "HumanEval.jsonl.gz", ("task_id", "prompt", "entry_point"), lambda row: Asked([row["prompt"]], row["task_id"])
    ),
    "speed-bench": PublicSet(
        "a Parquet file", ("question_id", "category", "turns|messages"), _speed_bench, _not_of_speed_bench
    ),
    "sharegpt": PublicSet("ShareGPT_V3_unfiltered_cleaned_split.json", ("conversations",), _sharegpt),
    "alpaca": PublicSet("alpaca_data.json", ("instruction", "output"), _alpaca),
}


def read_public(kind: str, path: Path) -> Iterator[tuple[str, Prompt]]:
    """The prompts of a set in a copy of its file, each with its file and line.

    Raises:
        PromptError: a row is not of this set, or what it asks is no text.
    """
    seen: dict[str, int] = {}
    categories = set[str]()
    for where, number, row in read_rows(path):
        _refuse_foreign(kind, where, row)
        asked = SETS[kind].ask(row)
        if asked.turns is None:
            continue
        prompt = _prompt(kind, where, number, asked)
        categories.add(prompt.category)
        if kind == "sharegpt":  # a conversation may be there in several parts with one id
            seen[prompt.prompt_id] = seen.get(prompt.prompt_id, 0) + 1
            prompt = prompt._replace(prompt_id=_nth(prompt.prompt_id, seen[prompt.prompt_id]))
        yield where, prompt
    if kind == "spec-bench" and categories and categories <= {*MT_BENCH}:
        raise PromptError(
            f"prompts=spec-bench: {path}: no row has a category of its own beside MT-Bench's; it looks like mt-bench: "
            "prompts=mt-bench"
        )


def _nth(prompt_id: str, count: int) -> str:
    return prompt_id if count == 1 else f"{prompt_id}#{count}"


def _prompt(kind: str, where: str, number: int, asked: Asked) -> Prompt:
    turns = asked.turns if isinstance(asked.turns, list) else [asked.turns]
    for turn, text in enumerate(turns or [None], start=1):
        if not (isinstance(text, str) and text and is_text(text)):
            raise PromptError(f"prompts={kind}: {where}: turn {turn} is {text!r}; expected a text")
    prompt_id = number if asked.prompt_id is None else asked.prompt_id
    category = "all" if asked.category in (None, "") else asked.category
    return Prompt(str(prompt_id), str(category), turns[0], len(turns), following=tuple(turns[1:]))


def _refuse_foreign(kind: str, where: str, row: Any) -> None:
    """Raise `PromptError` for a row of another set, with the set that it looks like."""
    if not isinstance(row, dict):
        raise PromptError(
            f"prompts={kind}: {where}: expected an object with {', '.join(map(_named, SETS[kind].needs))}"
        )
    why = _foreign(kind, row)
    if why is None:
        return
    others = [name for name in SETS if _foreign(name, row) is None]
    hint = f"it looks like {' or '.join(others)}" if others else "prompts=jsonl reads other rows"
    which = f": prompts={others[0]}" if len(others) == 1 else ""
    raise PromptError(f"prompts={kind}: {where} {why}; {hint}{which}")


def _foreign(kind: str, row: Of) -> str | None:
    for need in SETS[kind].needs:
        if all(row.get(key) is None for key in need.split("|")):
            return f"has no {_named(need)}"
    return SETS[kind].foreign(row)


def _named(need: str) -> str:
    return " or ".join(map(repr, need.split("|")))


def refuse_placeholders(path: str | None, prompts: Sequence[Prompt]) -> None:
    """Raise `PromptError` where prompts are SPEED-Bench's public rows without their texts."""
    empty = [p.prompt_id for p in prompts if any(str(text).startswith(PLACEHOLDER) for text in (p.text, *p.following))]
    if empty:
        raise PromptError(
            f"prompts.path={path}: {len(empty)} of {len(prompts)} prompts are placeholders (first: {empty[0]}): "
            "SPEED-Bench's public rows leave out texts of others; NVIDIA's prepare_data.py (Model-Optimizer, "
            "examples/specdec_bench) fills them, and prompts.categories= takes the categories that have none"
        )
