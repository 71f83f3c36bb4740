"""Texts of an engine in the target's tokens, each after the prompt that it continues."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import NamedTuple

from specdraft.config import Settings
from specdraft.drafters.pair import PairFiles
from specdraft.errors import PromptError
from specdraft.losslessness.against import Given, up_to_end
from specdraft.losslessness.rereading import PART, tokens_of
from specdraft.prompts import Prompt, PromptSpec, name_of_turn, turn_of_name
from specdraft.prompts.answers import Answer
from specdraft.prompts.turns import after_answer


class Unjudged(NamedTuple):
    """A text that could not be judged, and why."""

    name: str
    reason: str


class Encoded(NamedTuple):
    """The texts that are there in tokens, and the others."""

    given: list[Given]
    unjudged: list[Unjudged]


def encoded(
    pair: PairFiles,
    answers: Mapping[str, Answer],
    prompts: Mapping[str, Prompt],
    spec: PromptSpec,
    settings: Settings,
    wanted: set[str],
) -> Encoded:
    """The wanted texts in tokens, after their prompts; and those of which that cannot be had."""
    asked, found = _Asked(pair, answers, prompts, spec, settings), Encoded([], [])
    for name, answer in answers.items():
        if name in wanted:
            try:
                found.given.append(asked.given(answer))
            except PromptError as error:
                found.unjudged.append(Unjudged(name, str(error)))
    return found


@dataclass(frozen=True)
class _Asked:
    """What texts continue."""

    pair: PairFiles
    answers: Mapping[str, Answer]
    prompts: Mapping[str, Prompt]
    spec: PromptSpec
    settings: Settings

    def given(self, answer: Answer) -> Given:
        """A text in tokens after its prompt. Raises `PromptError` where there is no such thing."""
        prompt_ids = self.prompt_ids(answer)
        text = None
        if answer.token_ids is None:
            text = (answer.text or "").rstrip(PART)  # a limit may cut within a character
            ids = tokens_of(text, prompt_ids, self.pair)
            if ids is None:
                raise PromptError("its text does not come back from the target's tokenizer; token ids would do")
        else:
            ids = answer.token_ids
        if not ids:
            raise PromptError("its text is empty")
        known = self.pair.target.known_ids
        if wrong := [token for token in ids if not 0 <= token < known]:
            raise PromptError(f"token {wrong[0]} is none of the target's {known} ids")
        kept = up_to_end(ids, self.pair.target.eos_ids)
        room = Settings(max_new_tokens=len(kept), max_prompt_tokens=self.settings.max_prompt_tokens)
        return Given(answer.name, self.pair.fit(prompt_ids, room, 0), kept, text, len(ids) - len(kept))

    def prompt_ids(self, answer: Answer) -> list[int]:
        """What an answer continues: what it says itself, else the study's prompt of its id."""
        if answer.prompt_ids:
            return answer.prompt_ids
        if answer.prompt is not None:
            if self.pair.reader(self.spec.chat_template).holds_marks(answer.prompt):
                return self.pair.encode_plainly(answer.prompt)  # as it went into the engine
            return self.pair.encode(answer.prompt, self.spec.chat_template)
        if answer.name not in self.prompts:
            turn = turn_of_name(answer.name)
            if turn.turn > 1 and turn.prompt_id in self.prompts:
                raise PromptError("a further turn; prompts.turns=all would read it")
            raise PromptError(f"no prompt of {self.spec.label} has this id, and the row has no prompt of its own")
        prompt = self._with_answers(self.prompts[answer.name])
        room = Settings(max_new_tokens=1, max_prompt_tokens=self.settings.max_prompt_tokens)
        return self.pair.encode_to_fit(prompt.text, self.spec.chat_template, room, 0, prompt.before).ids

    def _with_answers(self, prompt: Prompt) -> Prompt:
        """A turn with those before it, and what the engine answered to them."""
        if not prompt.earlier:
            return prompt
        templated, whole = self.pair.reader(self.spec.chat_template).templated, prompt._replace(text=prompt.earlier[0])
        for number, text in enumerate((*prompt.earlier[1:], prompt.text), start=1):
            name = name_of_turn(turn_of_name(prompt.prompt_id).prompt_id, number)
            before = self.answers.get(name)
            if before is None:
                raise PromptError(f"the file has no text of {name}, which stands before it")
            said = self.pair.decode(before.token_ids or []) if before.text is None else before.text
            whole = after_answer(whole, said, prompt._replace(text=text), templated)
        return whole
