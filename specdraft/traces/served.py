"""Trajectories of a target behind a server: asked for side by side, each handed over as soon as it is sure."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from concurrent.futures import Future, ThreadPoolExecutor, as_completed
from typing import NamedTuple

import numpy as np

from specdraft.decoding.ending import Ending
from specdraft.errors import AnswerError, LeftOutError, ServerError
from specdraft.models.server.answer import Answer
from specdraft.models.server.served_files import ServedFiles
from specdraft.models.server.served_model import Continuation
from specdraft.prompts import Message

IN_A_ROW = 3  # answers that come to nothing one after another: the server is given up
Chats = Mapping[tuple[int, ...], Sequence[Message]]


class ServedTrajectory(NamedTuple):
    """See `Trajectory`; a gap that nobody told is NaN.

    Attributes:
        top_ids, top_log_probs: see `Continuation`.
    """

    tokens: np.ndarray
    gaps: np.ndarray
    top_ids: np.ndarray
    top_log_probs: np.ndarray


def served_trajectories(
    files: ServedFiles, prompts: Mapping[str, Sequence[int]], ending: Ending, chats: Chats
) -> Iterator[tuple[str, ServedTrajectory]]:
    """Greedy continuations of prompts, each as soon as it is over.

    Args:
        files: the target.
        prompts: prompt id -> token ids.
        ending: when a continuation is over.
        chats: the messages of each prompt, where the target is asked by chat.

    Raises:
        LeftOutError: when all others are done, of prompts that the server has no usable text of.
    """
    if files.out_of_reach:
        raise LeftOutError(dict.fromkeys(prompts, files.out_of_reach))
    asking = _Asking(files, ending, chats)
    try:
        yield from asking.all(prompts)
    finally:
        asking.close()
    if asking.left_out:
        raise LeftOutError(asking.left_out)


class _Asking:
    """Requests of one server that are under way."""

    def __init__(self, files: ServedFiles, ending: Ending, chats: Chats) -> None:
        self._model, self._ending, self._chats = files.model, ending, chats
        self._by_chat, self._eos_ids = files.spec.server.api == "chat", ending.eos_ids
        self._pool = ThreadPoolExecutor(files.spec.server.concurrency)
        self._failed, self._most_failed = 0, max(IN_A_ROW, files.spec.server.concurrency)
        self.left_out: dict[str, str] = {}

    def all(self, prompts: Mapping[str, Sequence[int]]) -> Iterator[tuple[str, ServedTrajectory]]:
        """Every continuation that is sure; why there are no others is in `left_out`."""
        under_way = {self._pool.submit(self._ask, ids): name for name, ids in prompts.items()}
        why = ""
        for future in as_completed(under_way):
            name = under_way[future]
            if future.cancelled():
                self.left_out[name] = why
                continue
            try:
                trajectory = self._trajectory(prompts[name], future)
            except (AnswerError, ServerError) as error:
                self.left_out[name] = why = str(error)
                self._failed += 1
                if isinstance(error, ServerError) or self._failed >= self._most_failed:
                    self.close()  # what has not begun is not begun; what is under way may still be sure
                continue
            self._failed = 0
            yield name, trajectory

    def _ask(self, ids: Sequence[int]) -> Answer:
        messages = self._chats.get(tuple(ids)) if self._by_chat else None
        if self._by_chat and messages is None:
            raise AnswerError("api=chat asks with messages, and there are none of this prompt (it was cut, or is raw)")
        said = None if messages is None else [message._asdict() for message in messages]
        return self._model.ask(ids, self._ending.max_new_tokens, said)

    def _trajectory(self, ids: Sequence[int], future: Future[Answer]) -> ServedTrajectory:
        told = self._model.continuation(ids, future.result(), self._eos_ids)
        size = next((at for at, token in enumerate(told.tokens, 1) if self._ending.reached(at, token)), None)
        if size is None:
            raise AnswerError(_unfinished(told, self._ending))
        return ServedTrajectory(
            np.array(told.tokens[:size]), told.gaps[:size], told.top_ids[:size], told.top_log_probs[:size]
        )

    def close(self) -> None:
        """End what is under way."""
        self._pool.shutdown(wait=False, cancel_futures=True)


def _unfinished(told: Continuation, ending: Ending) -> str:
    """Why a text is over for the server and not here."""
    count = len(told.tokens)
    if told.stopped and count:
        return (
            f"it ended the text with token {told.tokens[-1]}, which ends none here (eos_token_id of the folder's "
            f"generation_config.json: {sorted(ending.eos_ids)})"
        )
    return f"it gave {count} tokens of {ending.max_new_tokens} (its context may be full)"
