"""Files of texts that engines made."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from specdraft.errors import PromptError
from specdraft.prompts.answers import Answer, load_answers


def written(folder: Path, *rows: Any) -> Path:
    path = folder / "a.jsonl"
    path.write_text("".join(f"{row if isinstance(row, str) else json.dumps(row)}\n" for row in rows), encoding="utf-8")
    return path


IDS, TEXT = [5, 6], "so be it"


@pytest.mark.parametrize(
    ("row", "token_ids", "text"),
    [
        ({"token_ids": IDS}, IDS, None),
        ({"output_token_ids": IDS, "generated_text": TEXT}, IDS, TEXT),
        ({"text": TEXT, "output_ids": IDS, "meta_info": {}}, IDS, TEXT),  # SGLang
        ({"output": TEXT}, None, TEXT),
        ({"choices": [{"text": TEXT}, {"text": "another"}]}, None, TEXT),
        ({"choices": [{"text": TEXT, "token_ids": IDS}]}, IDS, TEXT),
        ({"choices": [{"message": {"role": "assistant", "content": TEXT}}]}, None, TEXT),
        ({"response": {"status_code": 200, "body": {"choices": [{"message": {"content": TEXT}}]}}}, None, TEXT),
        ({"outputs": [{"token_ids": IDS, "text": TEXT}]}, IDS, TEXT),  # vLLM's RequestOutput
        ({"choices": [{"index": 0, "turns": [TEXT]}]}, None, TEXT),  # Spec-Bench
        ({"turns": ["What is asked"], "output": TEXT}, None, TEXT),  # turns of the row are questions
        ({"token_ids": [], "text": ""}, [], ""),
    ],
)
def test_forms(tmp_path: Path, row: dict[str, Any], token_ids: list[int] | None, text: str | None) -> None:
    (answer,) = load_answers(written(tmp_path, {"question_id": 81} | row)).values()
    assert answer[1:] == ("81", token_ids, text, None, None, True)
    assert answer.where.endswith("a.jsonl, line 1")


def test_turns_are_prompts_of_their_own(tmp_path: Path) -> None:
    answers = load_answers(written(tmp_path, {"question_id": 81, "choices": [{"turns": ["one", "two"]}]}))
    assert {name: answer.text for name, answer in answers.items()} == {"81": "one", "81@turn2": "two"}


def test_what_a_row_continues(tmp_path: Path) -> None:
    rows = [
        {"prompt_id": "a", "text": "x", "prompt": "Say", "prompt_token_ids": [1, 2]},
        {"custom_id": "b", "text": "y", "prompt": ["no", "text"]},
        "",
        {"text": "z"},
    ]
    a, b, z = load_answers(written(tmp_path, *rows)).values()
    assert [answer.nameless for answer in (a, b, z)] == [False, False, True]
    assert (a.prompt_ids, a.prompt, b.prompt, b.name, z.name) == ([1, 2], "Say", None, "b", "4")


def test_a_list_is_read_as_lines_are(tmp_path: Path) -> None:
    rows = [{"prompt_id": "a", "text": "x"}, {"prompt_id": "b", "token_ids": [3]}]
    path = tmp_path / "a.json"
    path.write_text("\ufeff" + json.dumps(rows, indent=1), encoding="utf-8")
    assert list(load_answers(path).values()) == [
        Answer(f"{path}, item 1", "a", None, "x"),
        Answer(f"{path}, item 2", "b", [3], None),
    ]


@pytest.mark.parametrize(
    ("rows", "said"),
    [
        (["{"], "line 1: not JSON: "),
        (["[" * 100_000], ": not JSON: "),
        ([[1]], "item 1: expected an object with a text; expected token_ids, text, output"),
        ([3], "line 1: expected an object"),
        ([{"prompt_id": "a"}], "line 1: has no text; expected token_ids"),
        ([{"choices": []}], "line 1: has no text"),
        ([{"choices": ["x"], "outputs": {}}], "line 1: has no text"),
        ([{"token_ids": [1, 2.5]}], "line 1: token_ids is [1, 2.5]; expected a list of token ids"),
        ([{"token_ids": [True]}], "line 1: token_ids is [true]; expected"),
        ([{"token_ids": "1 2"}], 'line 1: token_ids is "1 2"; expected'),
        ([{"text": "x", "prompt_token_ids": ["a"]}], 'line 1: prompt_token_ids is ["a"]; expected'),
        (['{"text": "\\ud800"}'], 'line 1: "\\ud800" is no text; expected Unicode text'),
        ([{"choices": [{"turns": ["x", 3]}]}], "line 1: 3 is no text"),
        ([{"prompt_id": "a", "text": "x"}, {"prompt_id": "a", "text": "y"}], "line 2: prompt 'a' is already that of "),
        ([""], "a.jsonl: there are no texts in it"),
    ],
)
def test_bad_files(tmp_path: Path, rows: list[Any], said: str) -> None:
    with pytest.raises(PromptError) as error:
        load_answers(written(tmp_path, *rows))
    assert said in str(error.value)
    assert "\n" not in str(error.value)


def test_files_that_are_none(tmp_path: Path) -> None:
    with pytest.raises(PromptError, match="No such file"):
        load_answers(tmp_path / "none.jsonl")
    (tmp_path / "b.jsonl").write_bytes(b'{"text": "\xff"}')
    with pytest.raises(PromptError, match="not UTF-8 text"):
        load_answers(tmp_path / "b.jsonl")
