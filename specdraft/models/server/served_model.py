"""A served model as a function: token ids in, the greedy tokens that follow out, or one line on why not."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np

from specdraft.errors import AnswerError, ServerError
from specdraft.models.server.answer import Answer, Candidates, read_answer
from specdraft.models.server.connection import Connection, StatusError
from specdraft.models.server.dialects import VLLM, Chat, LlamaCpp, OpenAI, Request, SGLang, dialect_of
from specdraft.models.server.identity import Identity, identify
from specdraft.models.server.text_ids import ids_after, sent_text, told_otherwise
from specdraft.models.spec import ServerSpec

NOT_GREEDY = 0.01  # nats by which a greedy token may lie below the most probable one: rounding, nothing more
IDS_REFUSED = (400, 422)  # what servers say that take no token ids

Messages = Sequence[Mapping[str, str]]


class Continuation(NamedTuple):
    """What follows some tokens.

    Attributes:
        tokens: of greedy decoding.
        stopped: it ended by itself; then the last token is the one that ended it.
        gaps: `[len(tokens)]` float32, how far apart the two best logits were; NaN where nobody says.
        top_ids, top_log_probs: `[len(tokens), K]` int32 and float32, the most probable tokens and their logarithms;
            -1 and -inf beyond those that are given. K is 0 where none are.
    """

    tokens: list[int]
    stopped: bool
    gaps: np.ndarray
    top_ids: np.ndarray
    top_log_probs: np.ndarray


class ServedModel:
    """A model behind a server.

    Args:
        spec: where it is.
        key: the config key to name in errors.
        tokenizer: the model's.
        known_ids: that the tokenizer has.
        identity: what it was, if that is known; it must be that still.
    """

    def __init__(
        self, spec: ServerSpec, key: str, tokenizer: Any, known_ids: int, identity: Identity | None = None
    ) -> None:
        self._spec, self._tokenizer, self._known_ids = spec, tokenizer, known_ids
        self._connection = Connection(spec, key)
        self.identity = identity or identify(self._connection, spec.model)
        self._dialect: OpenAI | SGLang | LlamaCpp = dialect_of(self.identity.owner)
        self._by_text = self._probed = False
        self._reported: tuple[str | None, str | None] = (None, None)

    @property
    def name(self) -> str:
        """It in a line for people."""
        return self._connection.name

    @property
    def by_ids(self) -> bool:
        """Whether it gives token ids."""
        return self._dialect.by_ids

    def close(self) -> None:
        """End what is under way."""
        self._connection.close()

    def probe(self, ids: Sequence[int]) -> None:
        """Ask for one token, once.

        Raises:
            ServerError: it cannot be asked.
        """
        if self._probed:
            return
        try:
            self.continuation(ids, self.ask(ids, 1))
        except AnswerError as error:
            raise self.useless(error) from error
        self._probed = True

    def useless(self, error: AnswerError) -> ServerError:
        """What is said where one answer that cannot be used is too many."""
        said = str(error)
        return ServerError(said if said.startswith(self.name) else f"{self.name}: {said}")

    def ask(self, ids: Sequence[int], most: int, messages: Messages | None = None) -> Answer:
        """What it says of a prompt; threads may do this side by side.

        Args:
            ids: the prompt.
            most: tokens.
            messages: the chat that the prompt was made of, where it is asked by chat.

        Raises:
            ServerError: it cannot be asked, or is another model now.
            AnswerError: this answer cannot be used.
        """
        said = self._said(ids, most, messages)
        answer = read_answer(lambda: self._reader(messages).read(said), self.name)
        if (now := identify(self._connection, self.identity.model)).decides != self.identity.decides:
            raise self._changed(self.identity.decides, now.decides)
        return answer

    def _said(self, ids: Sequence[int], most: int, messages: Messages | None) -> Any:
        """Its answer to token ids, or to text where it takes none."""
        request = self._request(ids, most, messages)
        try:
            return self._connection.post(request.path, request.body, request.native)
        except StatusError as error:
            if messages is not None or self._dialect.by_ids or self._by_text or error.status not in IDS_REFUSED:
                raise
        self._by_text = True
        request = self._request(ids, most, messages)
        return self._connection.post(request.path, request.body, request.native)

    def _request(self, ids: Sequence[int], most: int, messages: Messages | None) -> Request:
        if messages is not None:
            return self._chat.request_chat(self.identity.model, [dict(message) for message in messages], most)
        prompt = sent_text(self._tokenizer, ids) if self._by_text else ids
        return self._dialect.request(self.identity.model, prompt, most)

    def _reader(self, messages: Messages | None) -> OpenAI | SGLang | LlamaCpp:
        return self._dialect if messages is None else self._chat

    @property
    def _chat(self) -> Chat:
        return Chat(by_ids=isinstance(self._dialect, VLLM))

    def continuation(self, ids: Sequence[int], answer: Answer, eos_ids: frozenset[int] = frozenset()) -> Continuation:
        """An answer as tokens, looked at from all sides.

        Args:
            ids: the prompt.
            answer: what was said of it.
            eos_ids: the tokens that a text may end with.

        Raises:
            ServerError: another model answered than before.
            AnswerError: it contradicts itself, or is no text of this tokenizer.
        """
        self._check_model(answer)
        self._check_prompt(ids, answer)
        given = ids_after(self._tokenizer, ids, answer.text) if answer.ids is None else answer.ids
        tokens = self._with_end(given, answer, eos_ids)
        if answer.new_tokens not in (None, len(given), len(tokens)):
            raise AnswerError(f"it counts {answer.new_tokens} new tokens, and gives {len(given)}")
        if wrong := [token for token in (*tokens, *self._sorts(answer)) if token >= self._known_ids]:
            raise AnswerError(f"it says token {wrong[0]}, and the tokenizer has {self._known_ids}: it is another's")
        if answer.ids is not None and (why := told_otherwise(self._tokenizer, given, answer.text)):
            raise AnswerError(why)
        return self._told(tokens, answer)

    @staticmethod
    def _sorts(answer: Answer) -> list[int]:
        return [some[0][0] for some in answer.candidates or []]

    def _check_model(self, answer: Answer) -> None:
        known = tuple(now or before for now, before in zip(answer.reported, self._reported, strict=True))
        for before, now in zip(self._reported, answer.reported, strict=True):
            if before is not None and now is not None and before != now:
                raise self._changed(self._reported, answer.reported)
        self._reported = known  # type: ignore[assignment]

    def _changed(self, before: Any, now: Any) -> ServerError:
        return ServerError(f"{self.name}: its model changed, from {before} to {now}; what it said before is kept")

    @staticmethod
    def _check_prompt(ids: Sequence[int], answer: Answer) -> None:
        if answer.prompt_ids is not None and answer.prompt_ids != list(ids):
            raise AnswerError("it read another prompt than was asked (its chat template is another)")
        if answer.prompt_tokens not in (None, len(ids)):
            raise AnswerError(f"it counts {answer.prompt_tokens} tokens of the prompt, and there are {len(ids)}")

    def _with_end(self, given: Sequence[int], answer: Answer, eos_ids: frozenset[int]) -> list[int]:
        """The tokens with the one that ended them, which some servers leave out."""
        tokens = list(given)
        if not answer.stopped or (tokens and tokens[-1] in eos_ids) or not eos_ids:
            return tokens
        if answer.stopped_by is not None and tokens[-1:] != [answer.stopped_by]:
            return [*tokens, answer.stopped_by]
        if answer.ids is None:
            own = getattr(self._tokenizer, "eos_token_id", None)
            if len(eos_ids) == 1 or own in eos_ids:
                return [*tokens, own if own in eos_ids else next(iter(eos_ids))]
            raise AnswerError(f"it ended the text and does not say with which of {sorted(eos_ids)}")
        return tokens

    @staticmethod
    def _told(tokens: list[int], answer: Answer) -> Continuation:
        count, told = len(tokens), answer.candidates
        gaps = np.full(count, np.nan, dtype=np.float32)
        wide = max((len(some) for some in told or []), default=0)
        top_ids, top_log_probs = np.full((count, wide), -1, np.int32), np.full((count, wide), -np.inf, np.float32)
        if told is None or len(told) > count:
            return Continuation(tokens, answer.stopped, gaps, top_ids[:, :0], top_log_probs[:, :0])
        for place, some in enumerate(told):
            _check_greedy(place, tokens[place], some)
            gaps[place] = some[0][1] - some[1][1]
            top_ids[place, : len(some)], top_log_probs[place, : len(some)] = zip(*some, strict=True)
        which = wide if (top_ids[:, :1] >= 0).all() else 0  # texts of tokens do not tell which they are
        return Continuation(tokens, answer.stopped, gaps, top_ids[:, :which], top_log_probs[:, :which])


def _check_greedy(place: int, token: int, candidates: Candidates) -> None:
    """Raise `AnswerError` where a token is not the most probable one."""
    if -1 in (told := dict(candidates)):  # texts, not ids
        return
    below = candidates[0][1] - told.get(token, -np.inf)
    if below > NOT_GREEDY:
        raise AnswerError(
            f"its token {place} is not the most probable one ({below:.2g} nats below it): it does not decode greedily, "
            "or changes probabilities (penalties, a bias)"
        )
