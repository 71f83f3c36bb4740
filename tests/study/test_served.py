"""A study of a target behind a server is the study of the target itself; what a server does wrong costs a line."""

from __future__ import annotations

import inspect
import json
import shutil
from pathlib import Path
from typing import Any

import pandas as pd
import pytest
from support.command_line import Run, Said
from support.served import Toy, serving

from specdraft.commands.options import DONE, SOME_FAILED, USAGE
from specdraft.drafters import registry
from specdraft.drafters.pair import Pair, load_pair
from specdraft.models.files import zoo_folder
from specdraft.models.spec import ModelSpec, PairSpec
from specdraft.results.metrics import COUNTS

TARGET = "zoo:target"
OTHERS = ["vllm", "sglang", "some company", "text only"]
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


def line_of(said: Said) -> str:
    """The error of a command that did nothing."""
    assert (said.code, said.out) == (USAGE, ""), said
    last = said.err.splitlines()[-1]
    assert last.startswith("error: ") and "Traceback" not in said.err
    return last


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


@pytest.mark.parametrize("owner", ["llamacpp", *(pytest.param(o, marks=pytest.mark.slow) for o in OTHERS)])
def test_a_served_target_is_the_target(owner: str, zoo: Pair, local: pd.DataFrame, run: Run, tmp_path: Path) -> None:
    with serving(Toy(zoo, owner)) as url:
        said = served(run, url, tmp_path / "out")
    assert said.code == DONE and "est_ columns are empty" in said.err, said.err
    pd.testing.assert_frame_equal(counts(tmp_path / "out"), local)
    told = manifest(tmp_path / "out")
    assert told["models"]["served"]["target"]["served"]["model"] == "toy" and "left_out" not in told
    recorded = told["certificate"]["recorded"]["served"]
    assert recorded["asked_twice"] == {"prompts": 3, "equal_share": 1.0, "differing": {}}
    assert "tokens_without_gap" not in recorded
    if owner not in {"text only", "some company"}:
        bounds = recorded["alpha_bounds"]
        assert 0 < bounds["lower"] < bounds["upper"] <= 1 and bounds["positions"] > 20


@pytest.mark.parametrize("owner", ["some company", pytest.param("vllm", marks=pytest.mark.slow)])
def test_it_is_asked_by_chat(owner: str, templated: Pair, run: Run, tmp_path: Path) -> None:
    toy = Toy(templated, owner)
    chat = [f"pair.target.path={templated.files.target.spec.path}", "pair.target.server.api=chat"]
    with serving(toy) as url:
        assert served(run, url, tmp_path / "chat", *chat).code == DONE
        assert served(run, url, tmp_path / "raw", *chat[:1]).code == DONE
    assert {path for path, _ in toy.requests} == {"/v1/chat/completions", "/v1/completions"}
    pd.testing.assert_frame_equal(counts(tmp_path / "chat"), counts(tmp_path / "raw"))
    recorded = manifest(tmp_path / "chat")["certificate"]["recorded"]["served"]
    assert recorded["tokens_without_gap"] == recorded["tokens"]


def test_a_chat_wants_messages(zoo: Pair, run: Run, tmp_path: Path) -> None:
    with serving(Toy(zoo)) as url:
        said = served(run, url, tmp_path / "out", "pair.target.server.api=chat")
    assert line_of(said).startswith("error: pair.target.server.api=chat asks with messages: expected a chat template")


def test_what_is_recorded_is_replayed_without_the_server(
    zoo: Pair, local: pd.DataFrame, run: Run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Prompts without a sure text are left out and asked for again; another address is not another model; and what is
    recorded needs no server."""
    toy = Toy(zoo)

    def wrong(number: int, said: Any) -> Any:
        same = number and toy.requests[number][1]["prompt"] == toy.requests[1][1]["prompt"]
        return said | ({"tokens_predicted": 99} if same else {})

    toy.fault = wrong
    monkeypatch.setenv("MY_KEY", "sesame-4711")
    keys = ["pair.target.server.key_env=MY_KEY", "pair.target.server.concurrency=1"]
    with serving(toy) as url:
        said = served(run, url, tmp_path / "out", *keys)
    ((name, why),) = manifest(tmp_path / "out")["left_out"]["served"].items()
    assert said.code == SOME_FAILED and "1 prompts are left out" in said.err
    assert why == "it counts 99 new tokens, and gives 12" and f"served: left out: {name}" in said.err
    there = counts(tmp_path / "out").query("tree in ['chain', 'kary']")
    pd.testing.assert_frame_equal(there, local.loc[there.index])
    assert len(there) == 12
    for folder in (tmp_path / "out", tmp_path / "traces"):
        assert not any(b"sesame" in path.read_bytes() for path in folder.rglob("*") if path.is_file())
    asked, toy.fault = len(toy.requests), Toy.fault
    with serving(toy) as other:
        healed = served(run, other, tmp_path / "out", *keys)
    assert healed.code == DONE and len(toy.requests) == asked + 3, healed.err  # a probe, the one left out, and it again
    assert "left_out" not in manifest(tmp_path / "out") and " 0 reused" not in healed.out
    again = served(run, other, tmp_path / "again", *keys)
    assert again.code == DONE and "nobody answers there" in again.err and "what it said before is replayed" in again.err
    pd.testing.assert_frame_equal(counts(tmp_path / "again"), local)
    longer = served(run, other, tmp_path / "longer", "max_new_tokens=13", *keys)
    assert line_of(longer).endswith("; 4 of 4 texts are not recorded yet") and not (tmp_path / "longer").exists()


@pytest.mark.parametrize(
    ("keys", "line"),
    [
        (["engine=live"], "a served target is not decoded with, its texts are replayed (specdraft sweep): engine=live"),
        (["sampling=sample"], "needs the target's whole distribution"),
        (["drafter=medusa"], "drafter=medusa computes with the target's own states or weights"),
        (["certify=true"], "certify=true decodes live"),
        (["length=goodput", "tree=chain"], "length=goodput weighs costs, which are not measured of a served target"),
    ],
    ids=lambda value: value[0] if isinstance(value, list) else "",
)
def test_what_cannot_be_is_said_before_anything_runs(
    keys: list[str], line: str, zoo: Pair, run: Run, tmp_path: Path
) -> None:
    with serving(Toy(zoo)) as url:
        said = served(run, url, tmp_path / "out", *keys)
    assert line in line_of(said) and not (tmp_path / "out").exists()


def test_other_commands_say_that_the_target_is_elsewhere(zoo: Pair, run: Run) -> None:
    with serving(Toy(zoo)) as url:
        said = run("generate", "Once", f"pair.target.path={TARGET}", f"pair.target.server.url={url}", "drafter=ngram")
    assert "a served target is not decoded with" in line_of(said)


def test_a_server_that_is_not_there(run: Run, tmp_path: Path) -> None:
    said = served(run, "http://127.0.0.1:9/v1", tmp_path / "out")
    assert "pair.target.server.url=http://127.0.0.1:9/v1: nobody answers there (" in line_of(said)


@pytest.mark.parametrize("kind", registry())
def test_drafters_that_compute_with_the_target_say_so(kind: str) -> None:
    source = Path(inspect.getfile(registry()[kind]))
    loaded = source.parent / "loaded" / source.name
    needs = registry()[kind]().traits.needs_target
    assert needs == (loaded.exists() and "target.load()" in loaded.read_text(encoding="utf-8"))
