"""A study of a target behind a server is the study of the target itself; what a server does wrong costs a line."""

from __future__ import annotations

import json
import shutil
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pandas as pd
import pytest
from support.command_line import Run, Said, one_line
from support.served import Reply, Toy, serving

from specdraft.commands.options import DONE, SOME_FAILED, USAGE
from specdraft.drafters.pair import Pair, load_pair
from specdraft.models.files import zoo_folder
from specdraft.models.spec import ModelSpec, PairSpec
from specdraft.results.metrics import COUNTS

TARGET = "zoo:target"
GRID = ["drafter=model,ngram", "tree=chain,kary,measured", "budget=3", "max_new_tokens=12", "report=false"]
PROMPTS = ["prompts.limit=4", "pair.draft.path=zoo:draft", f"pair.target.path={TARGET}", *GRID]


@pytest.fixture(scope="module")
def zoo() -> Pair:
    return load_pair("zoo")


@pytest.fixture(autouse=True)
def traces(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("SPECDRAFT_TRACES", str(tmp_path / "traces"))
    for name in ("SPECDRAFT_API_KEY", "OPENAI_API_KEY"):
        monkeypatch.delenv(name, raising=False)
    return tmp_path / "traces"


def served(run: Run, url: str, out: Path, *more: str) -> Said:
    server = [f"pair.target.server.url={url}", "pair.target.server.retries=0", "pair.name=served"]
    return run("sweep", "name=s", *server, *PROMPTS, *more, "--out", out)


def counts(out: Path) -> pd.DataFrame:
    table = pd.read_csv(out / "records.csv")
    return table.set_index(["drafter", "tree", "prompt_id"]).sort_index()[list(COUNTS)]


def manifest(out: Path) -> dict[str, Any]:
    read: dict[str, Any] = json.loads((out / "manifest.json").read_text(encoding="utf-8"))
    return read


@pytest.fixture(scope="module")
def local(tmp_path_factory: pytest.TempPathFactory) -> pd.DataFrame:
    """The study of the target itself."""
    from specdraft.study.plan import plan_study
    from specdraft.study.run import run_study

    folder = tmp_path_factory.mktemp("local")
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("SPECDRAFT_TRACES", str(folder / "traces"))
        run_study(plan_study(["name=s", "pair.name=local", "cost.measure=off", *PROMPTS]), folder / "out")
    return counts(folder / "out")


@pytest.fixture(scope="module")
def templated(tmp_path_factory: pytest.TempPathFactory) -> Pair:
    """The same target with a chat template that changes nothing."""
    folder = tmp_path_factory.mktemp("templated") / "target"
    shutil.copytree(zoo_folder() / "target", folder)
    (folder / "chat_template.jinja").write_text("{% for message in messages %}{{ message['content'] }}{% endfor %}")
    return load_pair(PairSpec("templated", ModelSpec(str(folder)), ModelSpec("zoo:draft")))


def check(said: Said, out: Path, local: pd.DataFrame, gaps: bool = True) -> None:
    assert said.code == DONE, said.err
    pd.testing.assert_frame_equal(counts(out), local)
    told = manifest(out)
    assert told["models"]["served"]["target"]["served"]["model"] == "toy"
    recorded = told["certificate"]["recorded"]["served"]
    assert recorded["asked_twice"] == {"prompts": 3, "equal_share": 1.0, "differing": {}}
    assert ("tokens_without_gap" in recorded) != gaps
    assert "left_out" not in told and "est_ columns are empty" in said.err


@pytest.mark.parametrize("owner", ["llamacpp", "vllm", "sglang", "some company", "text only"])
def test_a_served_target_is_the_target(owner: str, zoo: Pair, local: pd.DataFrame, run: Run, tmp_path: Path) -> None:
    with serving(Toy(zoo, owner)) as url:
        check(served(run, url, tmp_path / "out"), tmp_path / "out", local)


@pytest.mark.parametrize("owner", ["vllm", "some company"])
def test_it_is_asked_by_chat(owner: str, templated: Pair, local: pd.DataFrame, run: Run, tmp_path: Path) -> None:
    toy = Toy(templated, owner)
    chat = [f"pair.target.path={templated.files.target.spec.path}", "pair.target.server.api=chat"]
    with serving(toy) as url:
        check(served(run, url, tmp_path / "out", *chat), tmp_path / "out", local, gaps=False)
    assert {path for path, _ in toy.requests[1:]} == {"/v1/chat/completions"}


def test_a_chat_wants_messages(zoo: Pair, run: Run, tmp_path: Path) -> None:
    with serving(Toy(zoo)) as url:
        said = served(run, url, tmp_path / "out", "pair.target.server.api=chat")
    assert one_line(said).startswith("error: pair.target.server.api=chat asks with messages: expected a chat template")


def test_what_is_recorded_is_replayed_without_the_server(
    zoo: Pair, local: pd.DataFrame, run: Run, tmp_path: Path
) -> None:
    """Another address is not another model; a server that is gone is not needed, as long as nothing is missing."""
    with serving(toy := Toy(zoo)) as url:
        served(run, url, tmp_path / "first")
    asked = len(toy.requests)
    with serving(toy) as other:
        check(served(run, other, tmp_path / "second"), tmp_path / "second", local)
    assert len(toy.requests) == asked
    again = served(run, other, tmp_path / "third")
    check(again, tmp_path / "third", local)
    assert "nobody answers there" in again.err and "what it said before is replayed" in again.err
    longer = served(run, other, tmp_path / "fourth", "max_new_tokens=13")
    assert (longer.code, longer.out) == (USAGE, "")
    assert longer.err.splitlines()[-1].endswith("; 4 of 4 texts are not recorded yet")
    assert not (tmp_path / "fourth").exists()


Fault = Callable[[int, Any], Any]


def first(reply: Reply, count: int = 1) -> Fault:
    """The first answers after the probe are others."""
    return lambda number, said: reply if 1 <= number <= count else said


def changed(name: str, value: Any, after: int = 0) -> Fault:
    return lambda number, said: said if number <= after else said | {name: value}


def edited(number_of: int, edit: Callable[[dict[str, Any]], dict[str, Any]]) -> Fault:
    return lambda number, said: said | edit(said) if number == number_of else said


def late(number: int, said: Any) -> Any:
    time.sleep(0.5 * (number == 1))
    return said


LEFT_OUT = {
    "busy": (first(Reply({"error": {"message": "slow down"}}, 429)), "answers 429 after 0 retries: slow down"),
    "nonsense": (first(Reply("<html>gateway</html>")), "answers no JSON (it begins with '<html>gateway</html>')"),
    "no tokens": (first(Reply({"choices": []})), "the answer is not as this API's are (no 'tokens')"),
    "lies": (edited(1, lambda said: {"tokens_predicted": 99}), "it counts 99 new tokens, and gives"),
    "misread": (edited(1, lambda said: {"tokens_evaluated": 3}), "it counts 3 tokens of the prompt, and there are"),
    "short": (
        edited(1, lambda said: {"tokens": said["tokens"][:3], "tokens_predicted": 3, "completion_probabilities": []}),
        "it gave 3 tokens of 12 (its context may be full)",
    ),
    "other text": (edited(1, lambda said: {"content": "quite another text"}), "its tokenizer is another"),
    "not greedy": (
        edited(1, lambda said: {"completion_probabilities": [
            {"top_logprobs": [{"id": 5000, "logprob": -0.1}, {"id": 5001, "logprob": -3}]} for _ in said["tokens"]]}),
        "its token 0 is not the most probable one",
    ),
    "strange": (edited(1, lambda said: {"tokens": [10**6, *said["tokens"][1:]]}), "it says token 1000000, and the"),
    "slow": (late, "took longer than timeout_s=0.25"),
}  # fmt: skip


@pytest.mark.parametrize("name", LEFT_OUT)
def test_a_prompt_without_a_sure_text_is_left_out(
    name: str, zoo: Pair, local: pd.DataFrame, run: Run, tmp_path: Path
) -> None:
    fault, why = LEFT_OUT[name]
    timeout = "0.25" if name == "slow" else "60"
    with serving(Toy(zoo, fault=fault)) as url:
        keys = ["pair.target.server.concurrency=1", f"pair.target.server.timeout_s={timeout}", "tree=chain,kary"]
        said = served(run, url, tmp_path / "out", *keys)
        (left_out,) = manifest(tmp_path / "out")["left_out"]["served"].items()
        assert said.code == SOME_FAILED and why in left_out[1]
        assert "1 prompts are left out" in said.err and "Traceback" not in said.err
        there = counts(tmp_path / "out")
        assert left_out[0] not in there.index.get_level_values("prompt_id")
        expected = local[local.index.get_level_values("tree").isin(["chain", "kary"])]
        pd.testing.assert_frame_equal(
            there[there.index.isin(expected.index)], expected[expected.index.isin(there.index)]
        )
        assert len(expected) - len(there[there.index.isin(expected.index)]) == 4
        healed = served(run, url, tmp_path / "out", *keys)
    assert healed.code == DONE, healed.err
    assert "left_out" not in manifest(tmp_path / "out")


@pytest.mark.parametrize(
    ("fault", "why"),
    [
        (changed("model", "another", after=2), "its model changed, from ('toy', None) to ('another', None)"),
        (lambda number, said: Reply({}, 401) if number > 2 else said, "the key is refused (401); expected it in"),
    ],
    ids=["another model", "key withdrawn"],
)
def test_what_was_sure_before_it_changed_is_kept(
    fault: Fault, why: str, zoo: Pair, run: Run, tmp_path: Path, traces: Path
) -> None:
    with serving(toy := Toy(zoo, fault=fault)) as url:
        said = served(run, url, tmp_path / "out", "pair.target.server.concurrency=1")
    left_out = manifest(tmp_path / "out")["left_out"]["served"]
    assert said.code == SOME_FAILED and len(left_out) == 2 and all(why in reason for reason in left_out.values())
    assert said.err.count(why) == 1 and len(toy.requests) == 4
    assert len(counts(tmp_path / "out").index.get_level_values("prompt_id").unique()) == 2


def test_another_model_at_the_same_address_is_seen_between_requests(zoo: Pair, run: Run, tmp_path: Path) -> None:
    toy = Toy(zoo)

    def swap(number: int, said: Any) -> Any:
        toy.card = {"meta": {"n_params": 7}} if number >= 2 else {}
        return said

    toy.fault = swap
    with serving(toy) as url:
        said = served(run, url, tmp_path / "out", "pair.target.server.concurrency=1")
    assert said.code == SOME_FAILED and len(manifest(tmp_path / "out")["left_out"]["served"]) == 3
    assert "its model changed" in said.err


def test_a_server_that_differs_from_itself_is_named(zoo: Pair, run: Run, tmp_path: Path) -> None:
    def wavers(number: int, said: Any) -> Any:
        return said if number != 5 else said | {"tokens": said["tokens"][:-1] + [5], "content": "", **NO_GAPS}

    with serving(Toy(zoo, fault=wavers)) as url:
        said = served(run, url, tmp_path / "out", "pair.target.server.concurrency=1")
    twice = manifest(tmp_path / "out")["certificate"]["recorded"]["served"]["asked_twice"]
    assert said.code == DONE and twice["equal_share"] == pytest.approx(2 / 3) and len(twice["differing"]) == 1
    assert "greedy texts differ from one request to the next (1 of 3 prompts asked twice)" in said.err


NO_GAPS = {"completion_probabilities": []}


@pytest.mark.parametrize(
    ("toy", "keys", "line"),
    [
        ({}, ["pair.target.server.model=smol"], "serves no model 'smol' (known: toy)"),
        (
            {"fault": lambda number, said: Reply({}, 401)},
            [],
            "the key is refused (401); expected it in the environment",
        ),
        ({"fault": lambda number, said: Reply("<p>")}, [], "answers no JSON (it begins with '<p>')"),
        ({"fault": lambda number, said: Reply({"error": "loading"}, 503)}, [], "answers 503 after 0 retries: loading"),
        ({"card": {"meta": {"n_vocab": 12}}}, [], "the served model toy 12: it is another model's"),
        ({}, ["engine=live"], "a served target is replayed, not decoded with: engine=live"),
        ({}, ["sampling=sampled"], "needs the target's whole distribution"),
        ({}, ["drafter=medusa"], "drafter=medusa computes with the target's own states or weights"),
        ({}, ["drafter=early_exit"], "drafter=early_exit computes with the target's own states or weights"),
        ({}, ["certify=true"], "certify=true decodes live"),
        ({}, ["pair.target.dtype=float32"], "pair.target.dtype=float32 has no effect with pair.target.server.url"),
        ({}, ["pair.target.server.url=ftp://x"], "pair.target.server.url='ftp://x' is no address"),
        ({}, ["'pair.target.server.url=http://me:secret@x/v1'"], "holds a user, a password or a query"),
        ({}, ["pair.target.server.concurrency=0"], "pair.target.server.concurrency=0 is out of range"),
        ({}, ["pair.target.server.timeout_s=0"], "pair.target.server.timeout_s=0.0 is out of range"),
        ({}, ["pair.target.server.api=responses"], "pair.target.server.api='responses' is not known"),
        ({}, ["pair.target.server.key_env=NOT_THERE"], "NOT_THERE: there is no such environment variable"),
        ({}, ["pair.target.server.url=''"], "has no effect without pair.target.server.url"),
        ({}, ["pair.draft.server.url=http://x/v1"], "a draft model is read here"),
    ],
    ids=lambda value: " ".join(value) if isinstance(value, list) else "",
)
def test_what_cannot_be_is_said_in_a_line_before_anything_runs(
    toy: dict[str, Any], keys: list[str], line: str, zoo: Pair, run: Run, tmp_path: Path
) -> None:
    with serving(Toy(zoo, **toy)) as url:
        said = served(run, url, tmp_path / "out", *keys)
    assert (said.code, said.out) == (USAGE, ""), said.err
    assert line in said.err.splitlines()[-1] and said.err.splitlines()[-1].startswith("error: ")
    assert "secret" not in said.err and not (tmp_path / "out").exists()


def test_a_server_that_is_not_there(run: Run, tmp_path: Path) -> None:
    said = served(run, "http://127.0.0.1:9/v1", tmp_path / "out")
    assert one_line(said).startswith("error: pair.target.server.url=http://127.0.0.1:9/v1: nobody answers there (")


def test_the_key_goes_to_the_server_and_nowhere_else(
    zoo: Pair, run: Run, tmp_path: Path, traces: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("MY_KEY", "sesame-4711")
    echo = first(Reply({"error": {"message": "who is sesame-4711?"}}, 400))
    with serving(toy := Toy(zoo, fault=echo)) as url:
        said = served(run, url, tmp_path / "out", "pair.target.server.key_env=MY_KEY", "report=true")
    assert toy.keys == {"Bearer sesame-4711"} and said.code == SOME_FAILED and "who is ***?" in said.err
    written = [path for folder in (tmp_path / "out", traces) for path in folder.rglob("*") if path.is_file()]
    assert len(written) > 20 and not any(b"sesame" in path.read_bytes() for path in written)
    assert "sesame" not in said.err + said.out


def test_too_many_requests_are_waited_for(zoo: Pair, local: pd.DataFrame, run: Run, tmp_path: Path) -> None:
    busy = first(Reply({"error": "wait"}, 503, {"Retry-After": "1"}))
    with serving(Toy(zoo, fault=busy)) as url:
        started = time.perf_counter()
        said = served(run, url, tmp_path / "out", "pair.target.server.retries=2")
    check(said, tmp_path / "out", local)
    assert time.perf_counter() - started > 1
