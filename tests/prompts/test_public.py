"""Sets that others publish: rows as they have them, through the reader of every kind."""

from __future__ import annotations

import gzip
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pandas as pd
import pytest

from specdraft.errors import ConfigError, PromptError
from specdraft.prompts import KINDS, Prompt, PromptSpec, load_prompts
from specdraft.prompts.public import PLACEHOLDER, SETS

MT: list[dict[str, Any]] = [
    {"question_id": 81, "category": "writing", "turns": ["Compose a travel post.", "Rewrite it."]},
    {"question_id": 111, "category": "math", "turns": ["What is 2 + 2?", "Times 3?"], "reference": ["4", "12"]},
]
ROWS: dict[str, list[dict[str, Any]]] = {
    "spec-bench": [*MT, {"question_id": 241, "category": "translation", "turns": ["Translate: Das Haus."]}],
    "mt-bench": MT,
    "gsm8k": [{"question": "How many?", "answer": "Two. #### 2"}, {"question": "And now?", "answer": "#### 3"}],
    "humaneval": [
        {"task_id": "HumanEval/0", "prompt": "def f():\n", "entry_point": "f", "canonical_solution": " 1", "test": ""}
    ],
    "speed-bench": [
        {"question_id": "q1", "category": "coding", "sub_category": None, "turns": ["Sort it.", "Faster."],
         "source": "a/b", "src_id": "7", "difficulty": "hard", "multiturn": True},
        {"question_id": "q2", "category": "qa", "sub_category": "", "turns": [f"{PLACEHOLDER} USING SPECDEC_BENCH"],
         "source": "a/c", "src_id": "8", "difficulty": "", "multiturn": False},
    ],
    "sharegpt": [
        {"id": "x_0", "conversations": []},
        {"id": "x_0", "conversations": [{"from": "gpt", "value": "Go on."}, {"from": "human", "value": "Why?"},
                                        {"from": "gpt", "value": "So."}, {"from": "human", "value": "And then?"}]},
        {"id": "x_0", "conversations": [{"from": "system", "value": "Be brief."}, {"from": "user", "value": "Hello"}]},
        {"id": "y_0", "conversations": [{"from": "gpt", "value": "alone"}]},
    ],
    "alpaca": [
        {"instruction": "Name a port.", "input": "in Spain", "output": "Cadiz"},
        {"instruction": "Say hi.", "input": "", "output": "hi"},
    ],
}  # fmt: skip
TOLD = {  # id, category, text
    "spec-bench": [("81", "writing", MT[0]["turns"][0]), ("111", "math", MT[1]["turns"][0]),
                   ("241", "translation", "Translate: Das Haus.")],
    "mt-bench": [("81", "writing", MT[0]["turns"][0]), ("111", "math", MT[1]["turns"][0])],
    "gsm8k": [("1", "all", "How many?"), ("2", "all", "And now?")],
    "humaneval": [("HumanEval/0", "all", "def f():\n")],
    "speed-bench": [("q1", "coding", "Sort it.")],
    "sharegpt": [("x_0", "all", "Why?"), ("x_0#2", "all", "Hello")],
    "alpaca": [("1", "all", "Name a port.\n\nin Spain"), ("2", "all", "Say hi.")],
}  # fmt: skip
CATEGORIES = {"speed-bench": ["coding"]}  # the other rows are placeholders
Write = Callable[[Path, list[dict[str, Any]]], None]


def as_jsonl(path: Path, rows: list[dict[str, Any]]) -> None:
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))


def as_list(path: Path, rows: list[dict[str, Any]]) -> None:
    path.write_text(json.dumps(rows, indent=1))


def as_parquet(path: Path, rows: list[dict[str, Any]]) -> None:
    pd.DataFrame(rows).to_parquet(path)


def zipped(path: Path, rows: list[dict[str, Any]]) -> None:
    path.write_bytes(gzip.compress("".join(json.dumps(row) + "\n" for row in rows).encode()))


def zipped_parquet(path: Path, rows: list[dict[str, Any]]) -> None:
    as_parquet(path, rows)
    path.write_bytes(gzip.compress(path.read_bytes()))


FORMS: dict[str, Write] = {
    "jsonl": as_jsonl,
    "list": as_list,
    "parquet": as_parquet,
    "gzip": zipped,
    "gzip of parquet": zipped_parquet,
}


def read(path: Path, kind: str, rows: list[dict[str, Any]], write: Write = as_jsonl, **keys: Any) -> list[Prompt]:
    write(path / "file", rows)
    return load_prompts(PromptSpec(kind, str(path / "file"), **keys))


def test_every_set_is_a_kind_with_a_config() -> None:
    assert set(ROWS) == set(SETS) < set(KINDS)
    configs = Path(__file__).parents[2] / "configs" / "prompts"
    for kind in SETS:
        text = (configs / f"{kind}.yaml").read_text()
        assert text.startswith(f"# prompts={kind} prompts.path=") and f"\nkind: {kind}\n" in text


@pytest.mark.parametrize("form", FORMS)
@pytest.mark.parametrize("kind", SETS)
def test_rows_in_every_form(kind: str, form: str, tmp_path: Path) -> None:
    prompts = read(tmp_path, kind, ROWS[kind], FORMS[form], categories=CATEGORIES.get(kind))
    assert [(p.prompt_id, p.category, p.text) for p in prompts] == TOLD[kind]


@pytest.mark.parametrize("form", FORMS)
def test_a_file_of_ones_own_in_every_form(form: str, tmp_path: Path) -> None:
    rows = [{"question_id": "a", "category": "c", "turns": ["One.", "Two."]}, {"question_id": "b", "turns": ["Three."]}]
    assert [p.text for p in read(tmp_path, "jsonl", rows, FORMS[form])] == ["One.", "Three."]


def test_turns(tmp_path: Path) -> None:
    prompts = read(tmp_path, "sharegpt", ROWS["sharegpt"], as_list, turns="all")
    assert [(p.prompt_id, p.text, p.earlier) for p in prompts] == [
        ("x_0", "Why?", ()),
        ("x_0@turn2", "And then?", ("Why?",)),
        ("x_0#2", "Hello", ()),
    ]
    assert [p.prompt_id for p in read(tmp_path, "mt-bench", MT, turns="all")][:2] == ["81", "81@turn2"]


def test_other_columns_that_sets_are_published_with(tmp_path: Path) -> None:
    hub = [{"prompt_id": 81, "category": "writing", "prompt": ["Compose.", "Rewrite."], "reference": []}]
    assert read(tmp_path, "mt-bench", hub, as_parquet) == [
        Prompt("81", "writing", "Compose.", 2, following=("Rewrite.",))
    ]
    evaluated = [{"dataset": "koala", "instruction": "Say.", "output": "said", "generator": "g"}]
    assert read(tmp_path, "alpaca", evaluated, as_list)[0].category == "koala"
    filled = {**ROWS["speed-bench"][0], "messages": [{"role": "user", "content": text} for text in ("One.", "Two.")]}
    del filled["turns"]
    assert read(tmp_path, "speed-bench", [filled])[0][2:] == ("One.", 2, (), 0, ("Two.",), ())


def test_placeholders_are_no_prompts(tmp_path: Path) -> None:
    words = r"1 of 2 prompts are placeholders \(first: q2\): .*prepare_data\.py.*prompts\.categories="
    for kind in ("speed-bench", "jsonl"):
        with pytest.raises(PromptError, match=words):
            read(tmp_path, kind, ROWS["speed-bench"], as_parquet)
    assert len(read(tmp_path, "speed-bench", ROWS["speed-bench"], limit=1)) == 1


@pytest.mark.parametrize("kind", SETS)
@pytest.mark.parametrize("other", SETS)
def test_a_file_of_another_set(kind: str, other: str, tmp_path: Path) -> None:
    if kind == other:
        return
    with pytest.raises(PromptError) as raised:
        read(tmp_path, kind, ROWS[other])
    said = str(raised.value)
    assert said.startswith(f"prompts={kind}: {tmp_path / 'file'}") and "\n" not in said
    looks = said.partition("; it looks like ")[2].partition(":")[0]
    assert other in looks.split(" or ")
    assert kind not in looks.split(" or ")


def test_the_line_and_the_key_are_named(tmp_path: Path) -> None:
    with pytest.raises(PromptError, match=r"file, line 1 has no 'question'; it looks like sharegpt: prompts=sharegpt$"):
        read(tmp_path, "gsm8k", ROWS["sharegpt"])
    with pytest.raises(PromptError, match=r"line 3 has category 'translation', which is none of its eight; it looks"):
        read(tmp_path, "mt-bench", ROWS["spec-bench"])


@pytest.mark.parametrize(
    ("kind", "row", "words"),
    [
        ("gsm8k", {"question": 5, "answer": ""}, "line 1: turn 1 is 5; expected a text"),
        ("gsm8k", {"question": "", "answer": ""}, "line 1: turn 1 is ''; expected a text"),
        ("gsm8k", {"task": 1}, "has no 'question'; prompts=jsonl reads other rows"),
        ("gsm8k", ["a"], "expected an object with 'question', 'answer'"),
        ("gsm8k", {"question": "\ud800", "answer": ""}, "expected a text"),
        ("spec-bench", {"question_id": 1, "category": "qa", "turns": []}, "turn 1 is None; expected a text"),
        ("spec-bench", {"question_id": 1, "category": "qa", "turns": ["a", 2]}, "turn 2 is 2; expected a text"),
        ("mt-bench", {"prompt": ["a"], "category": "math"}, "has no 'question_id' or 'prompt_id'"),
        ("sharegpt", {"id": "x", "conversations": "hi"}, "turn 1 is None; expected a text"),
        ("sharegpt", {"id": "x", "conversations": [{"from": "human", "value": 3}]}, "turn 1 is 3; expected a text"),
        ("alpaca", {"instruction": 3, "output": ""}, "turn 1 is 3; expected a text"),
        ("speed-bench", {**ROWS["speed-bench"][0], "turns": None, "messages": 3}, "turn 1 is None; expected a text"),
    ],
)
def test_rows_that_cannot_be_meant(kind: str, row: Any, words: str, tmp_path: Path) -> None:
    with pytest.raises(PromptError) as raised:
        read(tmp_path, kind, [row])
    assert words in str(raised.value)


def test_an_id_twice(tmp_path: Path) -> None:
    with pytest.raises(PromptError, match="the prompt id '81' is already that of"):
        read(tmp_path, "mt-bench", [MT[0], MT[0]])


@pytest.mark.parametrize(
    ("written", "words"),
    [
        (b"PAR1 torn", "cannot be read as Parquet"),
        (b"\x1f\x8b torn", "not a whole gzip file"),
        (gzip.compress(b'{"question": "a", "answer": ""}', mtime=0)[:-9], "not a whole gzip file"),
        (b"{torn", "line 1: not JSON"),
    ],
)
def test_files_that_are_damaged(written: bytes, words: str, tmp_path: Path) -> None:
    (tmp_path / "file").write_bytes(written)
    with pytest.raises(PromptError) as raised:
        load_prompts(PromptSpec("gsm8k", str(tmp_path / "file")))
    assert words in str(raised.value) and "\n" not in str(raised.value)


def test_keys_that_mean_nothing() -> None:
    with pytest.raises(ConfigError, match=r"prompts\.kind=gsm8k needs one \(a copy of test\.jsonl\)"):
        load_prompts(PromptSpec("gsm8k"))
    for key, value in (("column", "x"), ("split", "test"), ("subset", "main")):
        with pytest.raises(ConfigError, match=rf"prompts\.{key}={value} has no effect"):
            load_prompts(PromptSpec("gsm8k", "file", **{key: value}))
