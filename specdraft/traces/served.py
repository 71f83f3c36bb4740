"""Trajectories of a target behind a server: asked for side by side, each handed over as soon as it is sure."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from queue import Empty, SimpleQueue
from threading import Thread
from typing import Any, NamedTuple

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
        asking.give_up("nobody wants more")
    if asking.left_out:
        raise LeftOutError(asking.left_out)


class _Asking:
    """Requests of one server, some side by side, in threads that end with the program whatever they wait for."""

    def __init__(self, files: ServedFiles, ending: Ending, chats: Chats) -> None:
        self._files, self._model, self._ending, self._chats = files, files.model, ending, chats
        self._by_chat, self._eos_ids = files.spec.server.api == "chat", ending.eos_ids
        self._concurrency = files.spec.server.concurrency
        self._given_up = ""
        self.left_out: dict[str, str] = {}

    def all(self, prompts: Mapping[str, Sequence[int]]) -> Iterator[tuple[str, ServedTrajectory]]:
        """Every continuation that is sure; why there are no others is in `left_out`."""
        todo: SimpleQueue[str] = SimpleQueue()
        done: SimpleQueue[tuple[str, Answer | Exception]] = SimpleQueue()
        for name in prompts:
            todo.put(name)
        for _ in range(min(self._concurrency, len(prompts))):
            Thread(target=self._work, args=(prompts, todo, done), daemon=True).start()
        in_a_row = 0
        for _ in prompts:
            name, said = done.get()
            try:
                trajectory = self._trajectory(prompts[name], said)
            except (AnswerError, ServerError) as error:
                self.left_out[name] = str(error)
                in_a_row += 1
                if isinstance(error, ServerError):
                    self._files.lose(str(error))
                if isinstance(error, ServerError) or in_a_row == max(IN_A_ROW, self._concurrency):
                    self.give_up(str(error))  # what has not begun is not begun; what is under way may still be sure
            else:
                in_a_row = 0
                yield name, trajectory

    def give_up(self, why: str) -> None:
        """Ask for nothing more."""
        self._given_up = self._given_up or why

    def _work(self, prompts: Mapping[str, Sequence[int]], todo: SimpleQueue[str], done: SimpleQueue[Any]) -> None:
        while True:
            try:
                name = todo.get_nowait()
            except Empty:
                return
            try:
                said: Answer | Exception = self._ask(prompts[name])
            except Exception as error:  # it is the asking thread's to say so
                said = error
            done.put((name, said))

    def _ask(self, ids: Sequence[int]) -> Answer:
        if self._given_up:
            raise AnswerError(self._given_up)
        messages = self._chats.get(tuple(ids)) if self._by_chat else None
        if self._by_chat and messages is None:
            raise AnswerError("api=chat asks with messages, and there are none of this prompt (it was cut, or is raw)")
        said = None if messages is None else [message._asdict() for message in messages]
        return self._model.ask(ids, self._ending.max_new_tokens, said)

    def _trajectory(self, ids: Sequence[int], said: Answer | Exception) -> ServedTrajectory:
        if isinstance(said, Exception):
            raise said
        told = self._model.continuation(ids, said, self._eos_ids)
        size = next((at for at, token in enumerate(told.tokens, 1) if self._ending.reached(at, token)), None)
        if size is None:
            raise AnswerError(_unfinished(told, self._ending))
        return ServedTrajectory(
            np.array(told.tokens[:size]), told.gaps[:size], told.top_ids[:size], told.top_log_probs[:size]
        )


def _unfinished(told: Continuation, ending: Ending) -> str:
    """Why a text is over for the server and not here."""
    count = len(told.tokens)
    if told.stopped and count:
        return (
            f"it ended the text with token {told.tokens[-1]}, which ends none here (eos_token_id of the folder's "
            f"generation_config.json: {sorted(ending.eos_ids)})"
        )
    return f"it gave {count} tokens of {ending.max_new_tokens} (its context may be full)"
