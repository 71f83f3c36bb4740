"""`specdraft certify --against`, on the tiny pair and on texts of the bundled target."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from support.command_line import Run, one_line
from support.tiny_models import PairFolders

from specdraft.commands.options import DONE, SOME_FAILED
from specdraft.drafters.pair import Pair

PROMPTS = {"a": "Once upon", "b": "def f(x):", "c": "It was late"}


@pytest.fixture
def pair(tiny_pair_folders: PairFolders, tmp_path: Path) -> list[str]:
    rows = [{"task_id": name, "prompt": text} for name, text in PROMPTS.items()]
    (tmp_path / "p.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    where = [f"pair.target.path={tiny_pair_folders.target}", "pair.target.device=cpu", "pair.name=tiny"]
    return [*where, f"prompts.path={tmp_path / 'p.jsonl'}"]


@pytest.fixture(scope="module")
def greedy(tiny_pair: Pair) -> dict[str, list[int]]:
    """What `transformers` makes of the prompts with the target alone."""
    return {name: tiny_pair.target.generate(tiny_pair.encode(text), 20, ()) for name, text in PROMPTS.items()}


def written(path: Path, texts: dict[str, list[int]], **more: Any) -> Path:
    path.write_text("".join(json.dumps({"prompt_id": n, "token_ids": ids} | more) + "\n" for n, ids in texts.items()))
    return path


def changed(ids: list[int], position: int, token: int) -> list[int]:
    return [*ids[:position], token, *ids[position + 1 :]]


def test_the_targets_own_texts(run: Run, pair: list[str], greedy: dict[str, list[int]], tmp_path: Path) -> None:
    said = run("certify", *pair, "--against", written(tmp_path / "a.jsonl", greedy))
    assert said.code == DONE, said
    last = said.out.splitlines()[-1]
    assert last.startswith("THE TARGET'S OWN: 3 texts of a.jsonl, ")
    assert last.endswith(": 3 equal, 0 with ties")


def test_a_planted_token(run: Run, pair: list[str], greedy: dict[str, list[int]], tmp_path: Path) -> None:
    """It is found where it is; without speculation the engine has the target's token: speculation changed it. Where the
    engine has it too, it is the engine's."""
    wrong = (greedy["b"][7] + 5) % 250
    bad = greedy | {"b": changed(greedy["b"], 7, wrong)}
    file, plain = written(tmp_path / "a.jsonl", bad), written(tmp_path / "b.jsonl", greedy)
    said = run("certify", *pair, "--against", file, "--json")
    assert said.code == SOME_FAILED
    found = json.loads(said.out)
    assert (found["certified"], found["counts"]["equal"], found["counts"]["bug"], found["control"]) == (
        False,
        2,
        1,
        None,
    )
    text = next(text for text in found["texts"] if text["prompt_id"] == "b")
    assert (text["verdict"], text["first"]["position"], text["first"]["token"]) == ("bug", 7, wrong)
    assert text["first"]["own"] == greedy["b"][7] and text["first"]["gap"] > found["tolerance"] == 1e-4
    assert "prompt b, token 7, " in found["sentence"]

    said = run("certify", *pair, "--against", file, "--against", plain, "--json")
    assert said.code == SOME_FAILED
    found = json.loads(said.out)
    assert [text["control"] for text in found["texts"]] == [None, "target's", None]
    assert found["control"]["counts"] == {"equal": 3, "tie": 0, "bug": 0}
    said = run("certify", *pair, "--against", file, "--against", file)
    assert said.code == DONE
    assert said.out.splitlines()[-1].startswith("SPECULATION CHANGES NOTHING: 3 texts of a.jsonl, ")
    assert "without speculation (a.jsonl): the target's own are 2 of 3 texts" in said.out

    gap = text["first"]["gap"]
    assert run("certify", *pair, "--against", file, "--tolerance", 100).code == DONE
    assert run("certify", *pair, "--against", file, "--tolerance", gap * 0.99).code == SOME_FAILED


def test_prompts_of_the_rows(
    run: Run, pair: list[str], greedy: dict[str, list[int]], tiny_pair: Pair, tmp_path: Path
) -> None:
    """As text or as ids; then no prompt set is read. A prompt that holds the tokenizer's marks gets no second ones."""
    rows = [
        {"prompt": PROMPTS["a"], "token_ids": greedy["a"]},
        {"prompt": f"<s>{PROMPTS['b']}", "token_ids": greedy["b"]},
        {"prompt_token_ids": tiny_pair.encode(PROMPTS["c"]), "token_ids": greedy["c"]},
    ]
    (tmp_path / "a.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    said = run("certify", *pair[:-1], "prompts.path=/nowhere.jsonl", "--against", tmp_path / "a.jsonl", "--json")
    assert said.code == DONE, said
    assert json.loads(said.out)["counts"] == {"equal": 3, "tie": 0, "engine": 0, "bug": 0, "unjudged": 0}


def test_turns_with_the_engines_own_answers(
    run: Run, pair: list[str], greedy: dict[str, list[int]], tiny_pair: Pair, tmp_path: Path
) -> None:
    """What stands before a second turn is what the engine answered to the first one, not what the target would have."""
    row = {"question_id": "t", "turns": ["Once", "And then?"]}
    (tmp_path / "t.jsonl").write_text(json.dumps(row) + "\n")
    second = tiny_pair.encode("Once upon a time\n\nAnd then?")
    rows = [
        {"prompt_id": "t", "token_ids": tiny_pair.encode(" upon a time")[1:], "text": " upon a time"},
        {"prompt_id": "t@turn2", "token_ids": tiny_pair.target.generate(second, 8, ())},
    ]
    (tmp_path / "a.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    asked = [*pair[:-1], f"prompts.path={tmp_path / 't.jsonl'}", "prompts.turns=all", "--against"]
    found = json.loads(run("certify", *asked, tmp_path / "a.jsonl", "--json").out)
    assert {text["prompt_id"]: text["verdict"] for text in found["texts"]} == {"t": "bug", "t@turn2": "equal"}
    (tmp_path / "b.jsonl").write_text(json.dumps(rows[1]) + "\n")
    assert (
        "t@turn2: the file has no text of t, which stands before it" in run("certify", *asked, tmp_path / "b.jsonl").out
    )


def test_what_cannot_be_judged_is_listed(
    run: Run, pair: list[str], greedy: dict[str, list[int]], tmp_path: Path
) -> None:
    rows: list[dict[str, Any]] = [
        {"prompt_id": "a", "token_ids": greedy["a"]},
        {"prompt_id": "b", "text": "\ufffd"},
        {"prompt_id": "c", "token_ids": [5, 9999]},
        {"prompt_id": "d", "token_ids": [5]},
        {"prompt_id": "a@turn2", "token_ids": [5]},
        {"prompt_id": "long", "prompt_token_ids": [5] * 500, "token_ids": [5] * 20},
    ]
    (tmp_path / "a.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    said = run("certify", *pair, "--against", tmp_path / "a.jsonl")
    assert said.code == DONE
    for line in (
        "prompt b: its text is empty",
        "prompt c: token 9999 is none of the target's 258 ids",
        "prompt d: no prompt of p.jsonl has this id, and the row has no prompt of its own",
        "prompt a@turn2: a further turn; prompts.turns=all would read it",
        "prompt long: 500 tokens + max_new_tokens=20",
    ):
        assert f"not judged: a.jsonl: {line}" in said.out
    assert said.out.splitlines()[-1].endswith("1 equal, 0 with ties; 5 texts not judged")
    (tmp_path / "a.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows[1:]))
    said = run("certify", *pair, "--against", tmp_path / "a.jsonl")
    assert (said.code, said.out.splitlines()[-1]) == (SOME_FAILED, "NOT TESTED: no text of a.jsonl could be judged")


def test_sampled_texts_are_held_against_what_could_be_drawn(
    run: Run, pair: list[str], greedy: dict[str, list[int]], tmp_path: Path
) -> None:
    file = written(tmp_path / "a.jsonl", greedy | {"b": changed(greedy["b"], 3, (greedy["b"][3] + 9) % 250)})
    sampled = ["sampling.temperature=0.8", "sampling.top_k=3"]
    assert run("certify", *pair, *sampled, "--against", file).code == SOME_FAILED
    assert run("certify", *pair, *sampled[:1], "sampling.top_k=258", "--against", file).code == DONE
    line = one_line(run("certify", *pair, "sampling.temperature=0.8", "--against", file))
    assert "sampling.temperature=0.8: a sampled text cannot be judged token by token" in line


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["--against", "none.jsonl"], "none.jsonl: No such file"),
        (["--against", "FILE", "--against", "FILE", "--against", "FILE"], "--against is given 3 times"),
        (["--against", "FILE", "--tolerance", "-1"], "--tolerance -1"),
        (["--against", "FILE", "--tolerance", "nan"], "--tolerance nan"),
        (
            ["--against", "FILE", "--tolerance", "bf16"],
            "--tolerance bf16 is out of range; expected logits",
        ),
        (["--against", "FILE", "--texts", "50"], "--texts 50 has no effect with --against"),
        (["--tolerance", "0.1"], "--tolerance 0.1 has no effect without --against"),
        (["--against", "FILE", "tree=kary"], "tree=kary has no effect in certify --against"),
        (["--against", "FILE", "max_new_tokens=4"], "max_new_tokens=4 has no effect"),
        (["--against", "FILE", "acceptance=topk"], "acceptance=topk has no effect"),
        (["--against", "FILE", "pair.target.dtype=float32,bfloat16"], "one target; the overrides make 2"),
        (["--against", "FILE", "prompts.turns=some"], "prompts.turns"),
    ],
)
def test_bad_input(
    run: Run, pair: list[str], greedy: dict[str, list[int]], tmp_path: Path, arguments: list[str], words: str
) -> None:
    file = str(written(tmp_path / "a.jsonl", greedy))
    said = run("certify", *pair, *(file if word == "FILE" else word for word in arguments))
    (line,) = [line for line in said.err.splitlines() if not line.startswith("loading")]
    assert (said.code, said.out) == (2, "")
    assert words in line


def test_texts_without_ids(run: Run, tmp_path: Path) -> None:
    """The bundled target's own: its tokenizer writes `_`, `_` and ` "` in other tokens than those that the model chose.
    One text lost the space in front, and one has another word."""
    number = " The number of cows that she needs to buy 122/2 = 122 centics\nThe total number of cows in the first 122"
    none = (
        'the same as a class, and the "None" is\nthe default value.\n\nThe "__" statement is a "__" or "__" or "__" or'
    )
    texts = {"37": number, "65": none, "1": none.replace("class", "house")}
    rows = [{"question_id": name, "choices": [{"turns": [f"{text}\ufffd"]}]} for name, text in texts.items()]
    (tmp_path / "a.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows[:2]))
    said = run("certify", "pair=zoo", "--against", tmp_path / "a.jsonl", "--json")
    assert said.code == DONE, said
    found = json.loads(said.out)
    assert found["counts"]["equal"] == 2 and all(text["reencoded"] for text in found["texts"])
    rows[1]["choices"][0]["turns"][0] = texts["1"]
    (tmp_path / "a.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows[:2]))
    said = run("certify", "pair=zoo", "--against", tmp_path / "a.jsonl", "--json")
    assert said.code == SOME_FAILED
    wrong = json.loads(said.out)["texts"][1]
    assert (wrong["verdict"], wrong["first"]["position"], wrong["first"]["own_text"]) == ("bug", 4, " class")
