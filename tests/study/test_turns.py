"""Prompts of several turns, measured turn by turn: the target's own greedy answers stand in front of later turns."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
from support.command_line import Run, one_line
from support.tiny_models import byte_tokenizer, save_model, tiny_llama

from specdraft.commands.options import DONE
from specdraft.drafters.ngram import Ngram
from specdraft.drafters.pair import Pair, load_pair
from specdraft.errors import ConfigError, PromptError
from specdraft.models.spec import ModelSpec, PairSpec
from specdraft.prompts import PromptSpec, digest_of_each, load_prompts, prompts_digest
from specdraft.replay.folds import folds, halves
from specdraft.results.metrics import COUNTS
from specdraft.results.prompt_sums import prompt_sums
from specdraft.study.engines import replay
from specdraft.study.plan import plan_study
from specdraft.study.run import run_study
from specdraft.study.turns import read_prompts
from specdraft.traces.store import TraceStore

NEW = 10
CHAT = (
    "{% for m in messages %}[{{ m['role'] }}]{{ m['content'] }}\n{% endfor %}"
    "{% if add_generation_prompt %}[assistant]{% endif %}"
)
ROWS: list[dict[str, Any]] = [
    {"question_id": "a", "category": "talk", "turns": ["Say one.", "Say two.", "Say three."]},
    {"question_id": "b", "category": "qa", "turns": ["What?"]},
    {"question_id": "c", "category": "talk", "turns": ["Tell me.", "Tell me more."]},
]
WITH_TEMPLATE = pytest.mark.parametrize("folder", [CHAT], indirect=True, ids=["chat"])
NAMES = ["a", "a@turn2", "a@turn3", "b", "c", "c@turn2"]


def written(path: Path, rows: list[dict[str, Any]]) -> str:
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    return f"prompts.path={path}"


@pytest.fixture(scope="module", params=[CHAT, None], ids=["chat", "plain"])
def folder(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """A target, and the prompts."""
    folder = tmp_path_factory.mktemp("talk")
    save_model(folder / "target", tiny_llama(), byte_tokenizer(chat_template=request.param))
    written(folder / "p.jsonl", ROWS)
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("SPECDRAFT_TRACES", str(folder / "traces"))
        patch.setattr(replay.ReplayEngine, "_costs", lambda *given: {})
        yield folder


def asked(folder: Path, *more: str) -> list[str]:
    """Overrides; of a key that is said again the last one counts."""
    pair = [f"pair.target.path={folder / 'target'}", "pair.name=talk", "drafter=ngram", "tree=chain", "budget=3"]
    said = [*pair, f"prompts.path={folder / 'p.jsonl'}", "prompts.turns=all", f"max_new_tokens={NEW}", "report=false"]
    return list({text.partition("=")[0]: text for text in (*said, *more)}.values())


def loaded(folder: Path) -> Pair:
    return load_pair(PairSpec("talk", ModelSpec(str(folder / "target"), device="cpu")), Ngram())


def counts(folder: Path, out: str) -> pd.DataFrame:
    """Of the chains of a study's records."""
    table = pd.read_csv(folder / out / "records.csv")
    return table[table["tree"] == "chain"].set_index(["prompt_id", "turn"]).sort_index()[list(COUNTS)]


def test_later_turns_follow_what_transformers_makes_of_the_earlier_ones(folder: Path) -> None:
    pair, plan = loaded(folder), plan_study(asked(folder))
    tokenizer, templated = pair.files.target.tokenizer, pair.files.target.tokenizer.chat_template is not None
    expected = {}
    for row in ROWS:
        messages, text = [], ""
        for number, turn in enumerate(row["turns"], start=1):
            messages.append({"role": "user", "content": turn})
            text += f"{text and chr(10) * 2}{turn}"
            if templated:
                text = tokenizer.apply_chat_template(messages, add_generation_prompt=True, tokenize=False)
            ids = tokenizer.encode(text, add_special_tokens=not templated)
            expected[row["question_id"] if number == 1 else f"{row['question_id']}@turn{number}"] = ids
            answer = tokenizer.decode(pair.target.generate(ids, NEW, pair.eos_ids), skip_special_tokens=True)
            messages.append({"role": "assistant", "content": answer})
            text += answer
    found = read_prompts(pair, plan.prompts, plan.combinations, TraceStore(folder / "traces"))
    assert found == expected
    assert list(found) == NAMES


@WITH_TEMPLATE
def test_a_row_a_turn_live_and_replayed(folder: Path) -> None:
    run_study(plan_study(asked(folder, "prompts.turns=first")), folder / "replay")
    first = counts(folder, "replay")
    grown = run_study(plan_study(asked(folder)), folder / "replay")
    assert (grown.reused, grown.rows) == (3, 3 + 6)  # the reference beside the chain is fitted anew
    run_study(plan_study(asked(folder, "engine=live")), folder / "live")
    live, replayed = counts(folder, "live"), counts(folder, "replay")
    assert list(live.index) == [("a", 1), ("a", 2), ("a", 3), ("b", 1), ("c", 1), ("c", 2)]
    assert live["accepted_tokens"].sum() > 0
    pd.testing.assert_frame_equal(live, replayed)
    pd.testing.assert_frame_equal(first, replayed[replayed.index.get_level_values("turn") == 1])
    (sums,) = prompt_sums(live.reset_index().assign(category="x"), np.zeros(6, dtype=np.int64), ["steps"])
    assert sums.sums["steps"].tolist() == [live["steps"].groupby("prompt_id").sum().tolist()]  # resampled together


@WITH_TEMPLATE
def test_a_turn_is_another_one_after_another_turn(folder: Path) -> None:
    other = written(folder / "other.jsonl", [ROWS[0] | {"turns": ["Say one.", "Say 2.", "Say three."]}])
    before, after = (digest_of_each(plan_study(asked(folder, *more)).prompts) for more in ((), (other,)))
    assert [before[name] == after[name] for name in ("a", "a@turn2", "a@turn3")] == [True, False, False]


@WITH_TEMPLATE
def test_commands_that_read_prompts(folder: Path, run: Run) -> None:
    prompts = [text for text in asked(folder, "prompts.limit=1") if text != "report=false"]
    shown = run("replay", "a@turn2", *prompts, "--json")
    assert shown.code == DONE
    assert json.loads(shown.out)["new_tokens"] == NEW
    said = one_line(run("replay", "a@turn2", *prompts, "--no-models"))
    assert "'a@turn2' waits for the target's answers to earlier turns, which take the models: --no-models" in said
    certified = run("certify", *prompts, "acceptance=greedy", "sampling=greedy")  # of all three turns
    assert certified.code == DONE, certified
    assert "prompts.turns=all is for specdraft sweep and certify" in one_line(
        run("trees", "fit", "measured", *[text for text in prompts if not text.startswith("tree")])
    )


@WITH_TEMPLATE
def test_what_does_not_go_with_turns(folder: Path) -> None:
    with pytest.raises(ConfigError, match=r"max_new_tokens cannot be swept with prompts\.turns=all"):
        plan_study(asked(folder, "max_new_tokens=4,8"))
    with pytest.raises(ConfigError, match=r"prompts\.turns='al' is not known; did you mean 'all'"):
        plan_study(asked(folder, "prompts.turns=al"))
    with pytest.raises(PromptError, match=r"prompt 'a@turn2': .* exceed the context of 512 of pair talk"):
        plan_study(asked(folder, "max_new_tokens=250"))
    plan_study(asked(folder, "max_new_tokens=250", "max_prompt_tokens=100"))


@pytest.mark.parametrize(
    ("row", "words"),
    [
        ({"turns": ["a", 3]}, "p.jsonl: prompt '1': turn 2 is 3; expected a text"),
        ({"turns": ["a", ""]}, "p.jsonl: prompt '1': turn 2 is ''; expected a text"),
        ({"question_id": "x@turn2", "prompt": "a"}, "line 1: question_id 'x@turn2' is what a further turn of a prompt"),
    ],
)
def test_rows_that_are_no_turns(row: dict[str, Any], words: str, tmp_path: Path) -> None:
    written(tmp_path / "p.jsonl", [row])
    with pytest.raises(PromptError) as raised:
        load_prompts(PromptSpec(path=str(tmp_path / "p.jsonl"), turns="all"))
    assert words in str(raised.value)


def test_turns_of_the_bundled_instructions() -> None:
    first, every = (load_prompts(PromptSpec("instruct", turns=turns)) for turns in ("first", "all"))
    assert (len(first), len(every)) == (98, 98 + 18)
    assert prompts_digest([prompt for prompt in every if not prompt.earlier]) == prompts_digest(first)
    half, of_first = halves(every, 7), halves(first, 7)
    assert of_first.tolist() == folds([prompt.category for prompt in first], 7).tolist()
    assert half[[not prompt.earlier for prompt in every]].tolist() == of_first.tolist()
    follows = [place for place, prompt in enumerate(every) if prompt.earlier]
    assert [half[place] for place in follows] == [half[place - 1] for place in follows]  # unseen by what scores them
    limited = load_prompts(PromptSpec("instruct", turns="all", limit=6))
    assert [prompt.prompt_id for prompt in limited][:3] == ["1", "1@turn2", "19"]
