"""A served model: what each kind of server is asked and says, and every way in which an answer can be wrong."""

from __future__ import annotations

import json
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from support.served import Reply, Toy, serving

from specdraft.drafters.pair import Pair, load_pair
from specdraft.errors import AnswerError, ConfigError, ServerError
from specdraft.models.server.answer import read_answer
from specdraft.models.server.connection import Connection
from specdraft.models.server.dialects import LlamaCpp, dialect_of
from specdraft.models.server.served_model import Continuation, ServedModel
from specdraft.models.spec import ModelSpec, PairSpec, ServerSpec

NEW = 8
KEY = "pair.target.server"
OWNERS = ["llamacpp", "vllm", "sglang", "some company", "text only"]
EXCHANGE = json.loads((Path(__file__).parent / "recorded_exchange.json").read_text(encoding="utf-8"))


@pytest.fixture(scope="module")
def zoo() -> Pair:
    return load_pair("zoo")


@pytest.fixture(autouse=True)
def no_keys(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("SPECDRAFT_API_KEY", "OPENAI_API_KEY"):
        monkeypatch.delenv(name, raising=False)


def model_at(url: str, pair: Pair, **spec: Any) -> ServedModel:
    files = pair.files.target
    return ServedModel(ServerSpec(url, **{"retries": 0} | spec), KEY, files.tokenizer, files.known_ids)


def follow(model: ServedModel, ids: list[int], pair: Pair) -> Continuation:
    return model.continuation(ids, model.ask(ids, NEW), pair.eos_ids)


@pytest.mark.parametrize("owner", OWNERS)
def test_the_tokens_are_the_models_own(owner: str, zoo: Pair) -> None:
    prompts = [zoo.encode(text) for text in ("It was a bright morning, and", "Once upon a time", "She said")]
    with serving(toy := Toy(zoo, owner)) as url:
        model = model_at(url, zoo)
        model.probe(prompts[0])
        told = [follow(model, ids, zoo) for ids in prompts]
    for ids, one in zip(prompts, told, strict=True):
        expected = toy.said(ids, NEW)
        assert one.tokens == expected.ids and one.stopped == expected.stopped
        best = np.array([[value for _, value in row[:2]] for row in expected.top])
        np.testing.assert_allclose(one.gaps, best[:, 0] - best[:, 1], atol=1e-5)
        assert one.top_ids.shape == one.top_log_probs.shape == (NEW, 5 if model.by_ids else 0)
        if model.by_ids:
            assert one.top_ids[:, 0].tolist() == one.tokens


@pytest.mark.parametrize("owner", OWNERS)
def test_an_end_is_an_end(owner: str, zoo: Pair) -> None:
    """A text that ends is told with the token that ended it, also where a server keeps that to itself."""
    stop = next(iter(zoo.eos_ids))
    toy = Toy(zoo, owner)
    ids = zoo.encode("It was a bright morning, and")
    usual = toy.said(ids, 3)
    toy.said = lambda prompt, most: usual._replace(ids=[*usual.ids[:2], stop], stopped=True)  # type: ignore[method-assign]
    with serving(toy) as url:
        model = model_at(url, zoo)
        model._by_text = owner == "text only"
        toy.fault = lambda number, said: (
            said | {"completion_probabilities": []} if owner == "llamacpp" else without(said)
        )
        told = follow(model, ids, zoo)
    assert told.stopped and told.tokens == [*usual.ids[:2], stop]


def without(said: Any) -> Any:
    """Candidates would say that the end was not the best token."""
    for choice in said.get("choices", []):
        choice["logprobs"] = {**choice["logprobs"], "top_logprobs": []}
    if "meta_info" in said:
        said["meta_info"]["output_top_logprobs"] = []
    return said


def test_a_real_exchange_with_llama_cpp() -> None:
    """Recorded from llama-server (b11434) with SmolLM2-135M-Instruct, cut small."""
    assert isinstance(dialect_of(EXCHANGE["models"]["data"][0]["owned_by"]), LlamaCpp)
    asked = LlamaCpp().request("smollm2", EXCHANGE["prompt"], len(EXCHANGE["answer"]["tokens"]))
    assert (asked.path, asked.native) == ("/completion", True)
    told = LlamaCpp().read(EXCHANGE["answer"])
    assert told.text == " Paris.\n\n" and told.ids == [7042, 30, 198, 198] and not told.stopped
    assert (told.prompt_tokens, told.new_tokens) == (5, 4)
    assert told.candidates is not None and [some[0][0] for some in told.candidates] == told.ids
    assert told.candidates[0][0][1] - told.candidates[0][1][1] == pytest.approx(2.4826, abs=1e-4)


def test_penalties_of_the_server_are_switched_off(zoo: Pair) -> None:
    for owner, path in (("llamacpp", "repeat_penalty"), ("vllm", "repetition_penalty")):
        body = dialect_of(owner).request("m", [1, 2], 3).body
        assert body["temperature"] == 0 and body[path] == 1
    assert dialect_of("sglang").request("m", [1], 3).body["sampling_params"]["repetition_penalty"] == 1


def second(token: int) -> dict[str, Any]:
    """Probabilities by which another token would have been better."""
    return {"top_logprobs": [{"id": 2, "logprob": -0.1}, {"id": token, "logprob": -0.2}]}


Edit = Callable[[dict[str, Any]], Any]
FAULTS: dict[str, tuple[Edit, str]] = {
    "busy": (lambda said: Reply({"error": {"message": "slow down"}}, 429), "answers 429 after 0 retries: slow down"),
    "nonsense": (lambda said: Reply("<html>no"), "answers no JSON (it begins with '<html>no')"),
    "another API": (lambda said: {"choices": []}, "the answer is not as this API's are (no 'tokens')"),
    "no list": (lambda said: [], "the answer is not as this API's are"),
    "no ids": (lambda said: said | {"tokens": ["a"]}, "(token ids that are none)"),
    "odd end": (lambda said: said | {"stop_type": "word"}, "(stop_type='word')"),
    "miscounted": (lambda said: said | {"tokens_predicted": 99}, "it counts 99 new tokens, and gives 8"),
    "misread": (lambda said: said | {"tokens_evaluated": 3}, "it counts 3 tokens of the prompt, and there are"),
    "other text": (lambda said: said | {"content": "quite another text"}, "its tokenizer is another"),
    "strange id": (lambda said: said | {"tokens": [10**6, *said["tokens"][1:]]}, "it says token 1000000, and the"),
    "no probability": (
        lambda said: said | {"completion_probabilities": [{"top_logprobs": [{"id": 1, "logprob": 2.0}]}]},
        "(a log-probability of 2.0)",
    ),
    "not greedy": (
        lambda said: said | {"completion_probabilities": [*map(second, said["tokens"])]},
        "its token 0 is not the most probable one (0.1 nats below it)",
    ),
}


@pytest.mark.parametrize("name", FAULTS)
def test_a_wrong_answer_is_no_answer(name: str, zoo: Pair) -> None:
    edit, why = FAULTS[name]
    with serving(Toy(zoo, fault=lambda number, said: edit(said))) as url, pytest.raises(AnswerError) as error:
        follow(model_at(url, zoo), zoo.encode("Once upon a time"), zoo)
    assert why in str(error.value) and "\n" not in str(error.value)


def test_a_slow_answer(zoo: Pair) -> None:
    def late(number: int, said: Any) -> Any:
        time.sleep(0.4)
        return said

    with serving(Toy(zoo, fault=late)) as url, pytest.raises(AnswerError, match=r"took longer than timeout_s=0\.2"):
        follow(model_at(url, zoo, timeout_s=0.2), zoo.encode("Once"), zoo)


def test_a_busy_server_is_waited_for(zoo: Pair) -> None:
    busy = Reply({"error": "loading"}, 503, {"Retry-After": "1"})
    with serving(toy := Toy(zoo, fault=lambda number, said: busy if number == 0 else said)) as url:
        started = time.perf_counter()
        follow(model_at(url, zoo, retries=1), zoo.encode("Once"), zoo)
    assert len(toy.requests) == 2 and time.perf_counter() - started >= 1


def test_text_that_does_not_come_back_is_no_answer(tiny_pair: Pair) -> None:
    """A random model of bytes says halves of letters."""
    with serving(Toy(tiny_pair, "text only")) as url, pytest.raises(ServerError, match="does not come back"):
        model_at(url, tiny_pair).probe(tiny_pair.encode("h\N{LATIN SMALL LETTER E WITH ACUTE}"))


@pytest.mark.parametrize("reported", ["model", "system_fingerprint"])
def test_another_model_answers(reported: str, zoo: Pair) -> None:
    fault = lambda number, said: said | ({reported: "another"} if number else {})  # noqa: E731
    with serving(Toy(zoo, "vllm", fault=fault)) as url:
        model = model_at(url, zoo)
        follow(model, zoo.encode("Once"), zoo)
        with pytest.raises(ServerError, match=r"its model changed, from .* to .*another"):
            follow(model, zoo.encode("Once"), zoo)


def test_another_model_is_listed(zoo: Pair) -> None:
    with serving(toy := Toy(zoo)) as url:
        model = model_at(url, zoo)
        toy.card = {"meta": {"n_params": 7}}
        with pytest.raises(ServerError, match="its model changed"):
            follow(model, zoo.encode("Once"), zoo)


@pytest.mark.parametrize(
    ("toy", "spec", "line"),
    [
        ({}, {"model": "smol"}, "serves no model 'smol'"),
        ({"card": {"id": "a\nb"}}, {"model": "b"}, "serves no model 'b'"),
        ({}, {"key_env": "NOT_THERE"}, f"{KEY}.key_env=NOT_THERE: there is no such environment variable"),
        (
            {"fault": lambda number, said: Reply({}, 401)},
            {},
            "the key is refused (401); expected it in the environment",
        ),
        ({"fault": lambda number, said: Reply({"error": "loading"}, 503)}, {}, "answers 503 after 0 retries: loading"),
    ],
)
def test_a_server_that_cannot_be_asked(toy: dict[str, Any], spec: dict[str, Any], line: str, zoo: Pair) -> None:
    with serving(Toy(zoo, **toy)) as url, pytest.raises(ServerError) as error:
        model_at(url, zoo, **spec).probe(zoo.encode("Once"))
    assert line in str(error.value) and "\n" not in str(error.value)


def test_nobody_is_there(zoo: Pair) -> None:
    with pytest.raises(ServerError, match=r"url=http://127\.0\.0\.1:9/v1: nobody answers there \("):
        model_at("http://127.0.0.1:9/v1", zoo)


def test_an_address_without_its_end(zoo: Pair) -> None:
    with (
        serving(Toy(zoo)) as url,
        pytest.raises(ServerError, match=r"/models answers 404: .*; expected the address of"),
    ):
        model_at(url.removesuffix("/v1"), zoo)


def test_the_key_is_sent_and_never_said(zoo: Pair, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("MY_KEY", "sesame-4711")
    echo = Reply({"error": {"message": "who is sesame-4711?"}}, 400)
    with serving(toy := Toy(zoo, fault=lambda number, said: echo)) as url, pytest.raises(AnswerError) as error:
        follow(model_at(url, zoo, key_env="MY_KEY"), zoo.encode("Once"), zoo)
    assert toy.keys == {"Bearer sesame-4711"} and "who is ***?" in str(error.value)


@pytest.mark.parametrize(
    ("spec", "line"),
    [
        (ServerSpec("ftp://x"), "k.url='ftp://x' is no address; expected as http://host:8000/v1"),
        (ServerSpec("http://x:y/v1"), "is no address"),
        (ServerSpec("http://me:secret@x/v1"), r"k.url holds a user, a password or a query, .* \(k.key_env\)"),
        (ServerSpec("http://x/v1?key=secret"), "holds a user, a password or a query"),
        (ServerSpec("http://x/v1", concurrency=0), "k.concurrency=0 is out of range; expected 1 or more"),
        (ServerSpec("http://x/v1", retries=-1), "k.retries=-1 is out of range; expected 0 or more"),
        (ServerSpec("http://x/v1", timeout_s=0), "k.timeout_s=0 is out of range; expected seconds, above 0"),
        (ServerSpec("http://x/v1", api="responses"), "k.api='responses' is not known"),
        (ServerSpec(model="m"), "k.model=m has no effect without k.url"),
    ],
)
def test_what_a_server_may_be_called(spec: ServerSpec, line: str) -> None:
    with pytest.raises(ConfigError, match=line) as error:
        spec.check("k")
    assert "secret" not in str(error.value)


def test_a_served_target_has_no_type_and_a_draft_model_is_here() -> None:
    server = ServerSpec("http://x/v1")
    with pytest.raises(ConfigError, match=r"t\.dtype=float16 has no effect with t\.server\.url: no weights are read"):
        ModelSpec("p", dtype="float16", server=server).check("t")
    with pytest.raises(ConfigError, match="a draft model is read here; a served one proposes chains"):
        PairSpec("p", ModelSpec("t"), ModelSpec("d", server=server)).check()


def test_what_is_missing_is_named() -> None:
    with pytest.raises(AnswerError, match=r"s: the answer is not as this API's are \(no 'a'\)"):
        read_answer(lambda: {}["a"], "s")


@pytest.mark.parametrize(("key", "said"), [("sk-secret\n", "nobody answers"), ("sk-sécret", "no printable ASCII")])
def test_a_key_that_no_header_can_hold_is_not_repeated(monkeypatch: pytest.MonkeyPatch, key: str, said: str) -> None:
    monkeypatch.setenv("SPECDRAFT_API_KEY", key)
    with pytest.raises(ServerError, match=said) as raised:
        Connection(ServerSpec("http://127.0.0.1:9/v1", retries=0), "pair.target.server").get("/models")
    assert "cret" not in str(raised.value)
