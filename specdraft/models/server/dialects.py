"""What servers have in common, and where each of them differs: how greedy tokens are asked for, and said.

vLLM, SGLang and llama.cpp take and give token ids; whatever else speaks OpenAI's API gives text, which is encoded
here. Penalties that a checkpoint's generation settings may name are switched off: the text is the bare model's.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, NamedTuple, Protocol

from specdraft.models.server.answer import Answer, Candidates, count, of_every_token, sorted_candidates, token_ids

CANDIDATES = 16  # most probable tokens that are asked for, of each token
FEW_CANDIDATES = 5  # of servers that refuse more
PLAIN = {"temperature": 0, "top_p": 1, "frequency_penalty": 0, "presence_penalty": 0}
TOKEN = "token_id:"  # how vLLM writes a token where a text is expected


class Request(NamedTuple):
    """Where a body goes; `native`: see `Connection.get`."""

    path: str
    body: dict[str, Any]
    native: bool = False


class Dialect(Protocol):
    """One kind of server.

    Attributes:
        name: what it is called.
        by_ids: it takes token ids, and gives them.
    """

    name: str
    by_ids: bool

    def request(self, model: str, prompt: Sequence[int] | str, most: int) -> Request:
        """Ask for at most so many greedy tokens after a prompt."""

    def read(self, said: Any) -> Answer:
        """What `request` was answered with. Raises what `read_answer` takes."""


class OpenAI:
    """`/completions` as OpenAI has it; TGI and others. Tokens may be sent; what comes back is text."""

    name, by_ids, candidates = "openai", False, FEW_CANDIDATES

    def request(self, model: str, prompt: Sequence[int] | str, most: int) -> Request:
        """See `Dialect.request`."""
        sent = prompt if isinstance(prompt, str) else list(prompt)
        return Request("/completions", self._body(model, most) | {"prompt": sent, "logprobs": self.candidates})

    def _body(self, model: str, most: int) -> dict[str, Any]:
        return {"model": model, "max_tokens": most, **PLAIN}

    def read(self, said: Any) -> Answer:
        """See `Dialect.read`."""
        (choice,) = said["choices"]
        return self._answer(said, choice, str(choice["text"]), self._candidates(choice))

    def _answer(
        self, said: Any, choice: Any, text: str, candidates: list[Candidates] | None, ids: list[int] | None = None
    ) -> Answer:
        ended, usage = choice["finish_reason"], said.get("usage") or {}
        if ended not in ("stop", "length", "eos_token", "stop_sequence"):  # the last two: TGI's
            raise ValueError(f"finish_reason={ended!r}")
        by, prompt_ids = choice.get("stop_reason"), choice.get("prompt_token_ids") or said.get("prompt_token_ids")
        return Answer(
            text,
            ids,
            ended != "length",
            by if isinstance(by, int) else None,
            count(usage.get("prompt_tokens")),
            count(usage.get("completion_tokens")),
            candidates,
            token_ids(prompt_ids),
            (said.get("model"), said.get("system_fingerprint")),
        )

    def _candidates(self, choice: Any) -> list[Candidates] | None:
        """Without ids: texts of tokens do not tell which they are."""
        told = (choice.get("logprobs") or {}).get("top_logprobs") or []
        listed = [sorted_candidates([(_id_in(text), lp) for text, lp in (some or {}).items()]) for some in told]
        return of_every_token(listed, len(listed)) if listed else None


class Chat(OpenAI):
    """`/chat/completions`: the prompt is a list of messages; token ids of vLLM only."""

    def __init__(self, by_ids: bool) -> None:
        self.by_ids = by_ids

    def request_chat(self, model: str, messages: Sequence[dict[str, str]], most: int) -> Request:
        """As `request`, of messages."""
        ids = {"return_token_ids": True} | VLLM_PLAIN if self.by_ids else {}
        return Request("/chat/completions", self._body(model, most) | {"messages": list(messages)} | ids)

    def read(self, said: Any) -> Answer:
        """See `Dialect.read`."""
        (choice,) = said["choices"]
        ids = token_ids(choice.get("token_ids"))
        return self._answer(said, choice, str(choice["message"]["content"] or ""), None, ids)


VLLM_PLAIN = {"repetition_penalty": 1, "skip_special_tokens": False}


class VLLM(OpenAI):
    """vLLM: ids by `return_token_ids`, candidates as `token_id:N`."""

    name, by_ids, candidates = "vllm", True, CANDIDATES

    def _body(self, model: str, most: int) -> dict[str, Any]:
        own = {"return_token_ids": True, "return_tokens_as_token_ids": True, "add_special_tokens": False}
        return super()._body(model, most) | VLLM_PLAIN | own

    def read(self, said: Any) -> Answer:
        """See `Dialect.read`."""
        (choice,) = said["choices"]
        ids = token_ids(choice.get("token_ids"))
        if ids is None:  # before 0.10.2
            ids = [_id_in(token) for token in choice["logprobs"]["tokens"]]
        found = self._candidates(choice) or []
        return self._answer(said, choice, str(choice["text"]), of_every_token(found, len(ids)), token_ids(ids))


class SGLang:
    """SGLang's own `/generate`, which gives what its OpenAI API keeps to itself."""

    name, by_ids = "sglang", True

    def request(self, model: str, prompt: Sequence[int] | str, most: int) -> Request:
        """See `Dialect.request`."""
        plain = {"temperature": 0, "top_p": 1, "repetition_penalty": 1, "skip_special_tokens": False}
        body = {
            "input_ids": list(prompt),
            "sampling_params": plain | {"max_new_tokens": most},
            "return_logprob": True,
            "top_logprobs_num": CANDIDATES,
        }
        return Request("/generate", body, native=True)

    def read(self, said: Any) -> Answer:
        """See `Dialect.read`."""
        told, ids = said["meta_info"], token_ids(said["output_ids"])
        ended, usual = told["finish_reason"], told.get("output_top_logprobs") or []
        if ended["type"] not in ("stop", "length"):
            raise ValueError(f"finish_reason={ended['type']!r}")
        by = ended.get("matched")
        return Answer(
            str(said["text"]),
            ids,
            ended["type"] == "stop",
            by if isinstance(by, int) else None,
            count(told.get("prompt_tokens")),
            count(told.get("completion_tokens")),
            of_every_token(
                [sorted_candidates([(t, lp) for lp, t, *_ in some or []]) for some in usual], len(ids or [])
            ),
            None,
            (None, told.get("weight_version")),
        )


class LlamaCpp:
    """llama.cpp's own `/completion`: the OpenAI one leaves tokens out that end amid a letter."""

    name, by_ids = "llama.cpp", True

    def request(self, model: str, prompt: Sequence[int] | str, most: int) -> Request:
        """See `Dialect.request`: nothing is reused of other prompts, which would round otherwise."""
        body = {
            "model": model,
            "prompt": list(prompt),
            "n_predict": most,
            "temperature": 0,
            "repeat_penalty": 1,
            "presence_penalty": 0,
            "frequency_penalty": 0,
            "dry_multiplier": 0,
            "return_tokens": True,
            "n_probs": CANDIDATES,
            "cache_prompt": False,
        }
        return Request("/completion", body, native=True)

    def read(self, said: Any) -> Answer:
        """See `Dialect.read`."""
        ids, ended = token_ids(said["tokens"]), said["stop_type"]
        if ended not in ("eos", "limit"):
            raise ValueError(f"stop_type={ended!r}")
        listed = [
            sorted_candidates([(one["id"], one["logprob"]) for one in some["top_logprobs"]])
            for some in said.get("completion_probabilities") or []
        ]
        return Answer(
            str(said["content"]),
            ids,
            ended == "eos",
            None,
            count(said.get("tokens_evaluated")),
            count(said.get("tokens_predicted")),
            of_every_token(listed, len(ids or [])),
            None,
            (said.get("model"), said.get("system_fingerprint")),
        )


DIALECTS: dict[str, type[OpenAI] | type[VLLM] | type[SGLang] | type[LlamaCpp]] = {
    "vllm": VLLM,
    "sglang": SGLang,
    "llamacpp": LlamaCpp,
}  # by what `/models` says of who owns a model


def dialect_of(owned_by: Any) -> OpenAI | SGLang | LlamaCpp:
    """How a server is spoken to."""
    return DIALECTS.get(str(owned_by), OpenAI)()


def _id_in(token: str) -> int:
    """The id that vLLM writes as a text; -1 of other texts."""
    written = token.removeprefix(TOKEN)
    return int(written) if token.startswith(TOKEN) and written.isdecimal() else -1
