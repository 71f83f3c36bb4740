"""A server for tests: a local model behind HTTP, as vLLM, SGLang, llama.cpp or any other server would say it."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from threading import Lock, Thread
from typing import Any, NamedTuple

import torch

from specdraft.drafters.pair import Pair
from specdraft.models.files import eos_ids

TOP = 5


class Reply(NamedTuple):
    """What goes back: JSON, or text that is none."""

    body: Any
    status: int = 200
    headers: dict[str, str] = {}  # noqa: RUF012


class Said(NamedTuple):
    """Greedy tokens after a prompt, with the best few of each place."""

    ids: list[int]
    stopped: bool
    top: list[list[tuple[int, float]]]


@dataclass
class Toy:
    """A served model.

    Attributes:
        pair: whose target is served.
        owner: what serves it, as `/models` says it.
        fault: the number of a completion (from 0) and its usual answer -> another one.
        card: what `/models` says besides.
        requests: bodies that were sent, with the paths; `keys`: what stood in the header of authorisation.
    """

    pair: Pair
    owner: str = "llamacpp"
    fault: Callable[[int, Any], Any] = lambda number, said: said
    card: dict[str, Any] = field(default_factory=dict)
    requests: list[tuple[str, dict[str, Any]]] = field(default_factory=list)
    keys: set[str | None] = field(default_factory=set)
    lock: Any = field(default_factory=Lock)

    @property
    def models(self) -> dict[str, Any]:
        usual = {"id": "toy", "created": len(self.requests), "owned_by": self.owner, "object": "model"}
        return {"object": "list", "data": [usual | self.card]}

    def answer(self, path: str, body: dict[str, Any]) -> Any:
        with self.lock:
            number = len(self.requests)
            self.requests.append((path, body))
            usual = {
                "/v1/completions": self._completions,
                "/v1/chat/completions": self._chat,
                "/completion": self._llama_cpp,
                "/generate": self._sglang,
            }[path](body)
        return self.fault(number, usual)

    def said(self, ids: list[int], most: int) -> Said:
        target = self.pair.target
        stops = eos_ids(target.model.generation_config, target.model.config)
        tokens = target.generate(ids, most, stops)
        with torch.inference_mode():
            logits = target.model(torch.tensor([[*ids, *tokens]])).logits[0, len(ids) - 1 : -1, : target.vocab]
        best = logits.float().log_softmax(-1).topk(TOP)
        told = [[*zip(*row, strict=True)] for row in zip(best.indices.tolist(), best.values.tolist(), strict=True)]
        return Said(tokens, tokens[-1] in stops, told)

    def text(self, said: Said) -> str:
        ids = said.ids[:-1] if said.stopped else said.ids
        return str(self.pair.files.target.tokenizer.decode(ids, clean_up_tokenization_spaces=False))

    def _completions(self, body: dict[str, Any]) -> Any:
        prompt = body["prompt"]
        if isinstance(prompt, str):
            prompt = self.pair.files.target.tokenizer.encode(prompt)
        elif self.owner == "text only":
            return Reply({"error": "prompt: expected a string"}, 422)
        said = self.said(prompt, body["max_tokens"])
        choice = self._choice(said) | {"text": self.text(said)}
        named = "token_id:{}".format if body.get("return_tokens_as_token_ids") else repr
        top = [{named(token): value for token, value in row} for row in said.top]
        choice["logprobs"] = {"tokens": [named(token) for token in said.ids], "top_logprobs": top}
        if body.get("return_token_ids"):
            choice |= {"token_ids": said.ids, "prompt_token_ids": prompt}
        return self._usual(prompt, said, choice)

    def _chat(self, body: dict[str, Any]) -> Any:
        prompt = self.pair.encode(body["messages"][-1]["content"])
        said = self.said(prompt, body["max_tokens"])
        choice = self._choice(said) | {"message": {"role": "assistant", "content": self.text(said)}}
        return self._usual(prompt, said, choice | ({"token_ids": said.ids} if body.get("return_token_ids") else {}))

    @staticmethod
    def _choice(said: Said) -> dict[str, Any]:
        return {"index": 0, "finish_reason": "stop" if said.stopped else "length", "stop_reason": None}

    @staticmethod
    def _usual(prompt: list[int], said: Said, choice: dict[str, Any]) -> dict[str, Any]:
        usage = {"prompt_tokens": len(prompt), "completion_tokens": len(said.ids)}
        return {"model": "toy", "system_fingerprint": "f1", "choices": [choice], "usage": usage}

    def _llama_cpp(self, body: dict[str, Any]) -> Any:
        said = self.said(body["prompt"], body["n_predict"])
        told = [{"top_logprobs": [{"id": token, "logprob": value} for token, value in row]} for row in said.top]
        return {
            "content": self.text(said),
            "tokens": said.ids,
            "model": "toy",
            "tokens_predicted": len(said.ids),
            "tokens_evaluated": len(body["prompt"]),
            "stop_type": "eos" if said.stopped else "limit",
            "completion_probabilities": told,
        }

    def _sglang(self, body: dict[str, Any]) -> Any:
        said = self.said(body["input_ids"], body["sampling_params"]["max_new_tokens"])
        ended = {"type": "stop", "matched": said.ids[-1]} if said.stopped else {"type": "length", "length": 1}
        told = {
            "finish_reason": ended,
            "prompt_tokens": len(body["input_ids"]),
            "completion_tokens": len(said.ids),
            "output_top_logprobs": [[[value, token, None] for token, value in row] for row in said.top],
        }
        return {"text": self.text(said), "output_ids": said.ids, "meta_info": told}


@contextmanager
def serving(toy: Toy) -> Iterator[str]:
    """A server on a free port; its URL."""

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            found = {"/v1/models": toy.models, "/props": {"build_info": "b1"}}.get(self.path)
            self.reply(found if found is not None else Reply("no such page", 404))

        def do_POST(self) -> None:
            toy.keys.add(self.headers.get("Authorization"))
            body = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
            self.reply(toy.answer(self.path, body))

        def reply(self, said: Any) -> None:
            reply = said if isinstance(said, Reply) else Reply(said)
            content = (reply.body if isinstance(reply.body, str) else json.dumps(reply.body)).encode()
            try:
                self.send_response(reply.status)
                for name, value in {"Content-Type": "application/json", **reply.headers}.items():
                    self.send_header(name, value)
                self.send_header("Content-Length", str(len(content)))
                self.end_headers()
                self.wfile.write(content)
            except OSError:
                pass  # whoever asked has given up

        def log_message(self, *arguments: Any) -> None:
            """Nothing."""

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    server.daemon_threads = True
    Thread(target=server.serve_forever, args=(0.01,), daemon=True).start()
    try:
        yield f"http://127.0.0.1:{server.server_address[1]}/v1"
    finally:
        server.shutdown()
        server.server_close()
