"""One row of a prompt file as a prompt: a text, turns, or a conversation in OpenAI's form."""

from __future__ import annotations

from typing import Any, NamedTuple

from specdraft.errors import PromptError

ROLES = ("system", "developer", "user", "assistant")
ROW_FORMS = "'turns', 'prompt' or 'messages' (or 'instruction'; prompts.column names another)"
MESSAGE_FORM = 'an object {"role", "content"}'
TOOLS = ("tools", "functions", "tool_calls", "function_call")  # calls of tools are not measured
LONGEST_SHOWN = 60  # characters of a value that an error message repeats


class Message(NamedTuple):
    """One message of a conversation."""

    role: str
    content: str


class Prompt(NamedTuple):
    """One prompt; `prompt_id` is unique in its set.

    Attributes:
        text: what is continued: a text, the first of several turns, or the last message of the user.
        turns: how many turns its row has; the first is measured.
        before: the messages in front of the text: a system prompt, earlier turns.
        after: how many messages its row has behind the text, which are not measured.
        following: the texts of the further turns.
        earlier: the texts of the turns in front, of which the target's answers are not known yet (see `turns.py`).
    """

    prompt_id: str
    category: str
    text: str
    turns: int = 1
    before: tuple[Message, ...] = ()
    after: int = 0
    following: tuple[str, ...] = ()
    earlier: tuple[str, ...] = ()


class _Asked(NamedTuple):
    """The part of a prompt that its row's text makes."""

    text: str
    turns: int = 1
    before: tuple[Message, ...] = ()
    after: int = 0
    following: tuple[str, ...] = ()


def is_text(text: str) -> bool:
    """Whether a string is Unicode text: JSON escapes and what a shell hands over may hold halves of surrogate pairs."""
    return not any("\ud800" <= letter <= "\udfff" for letter in text)


def parse_row(where: str, row: Any, number: int, column: str | None = None) -> Prompt:
    """A row as a prompt.

    Args:
        where: the file and line, for errors.
        row: what the line holds.
        number: the prompt's id where the row has none.
        column: the key that holds the text (default: see `_asked`).

    Raises:
        PromptError: the row is no prompt.
    """
    if not isinstance(row, dict):
        raise PromptError(f"{where}: expected an object with {ROW_FORMS}")
    asked = _asked(where, row, column)
    prompt_id = next((row[key] for key in ("question_id", "task_id") if row.get(key) is not None), number)
    category = row.get("category")
    prompt = Prompt(str(prompt_id), str("all" if category in (None, "") else category), *asked)
    if not all(map(is_text, (*prompt[:3], *(message.content for message in prompt.before)))):
        raise PromptError(f"{where}: holds half of a surrogate pair, which is no text")
    return prompt


def _asked(where: str, row: dict[str, Any], column: str | None) -> _Asked:
    """What a row asks: `{"turns": [..]}` (Spec-Bench), `{"prompt"}`, `{"messages": [..]}` (OpenAI), `{"instruction",
    "input"}` (Alpaca: joined by a blank line), or what its column of this name holds. A text, a list of turns and a
    list of messages are taken under every key but `turns`."""
    key = column or next((key for key in ("turns", "prompt", "messages") if row.get(key) is not None), "instruction")
    value = row.get(key)
    wanted = f"text in {column!r}" if column else f"text in {ROW_FORMS}"
    if key == "messages" or (isinstance(value, list) and value and isinstance(value[0], dict)):
        _refuse_tools(where, row)
        return _conversation(f"{where}: {key}", value)
    if column is None and key == "turns":
        wanted, value = "a list of texts in 'turns'", value if isinstance(value, list) else None
    elif column is None and key == "instruction" and isinstance(value, str):
        value = "\n\n".join(part for part in (value, row.get("input")) if part and isinstance(part, str))
    turns = [value] if isinstance(value, str) else value
    if not (isinstance(turns, list) and turns and isinstance(turns[0], str) and turns[0]):
        raise PromptError(f"{where}: expected {wanted}")
    return _Asked(turns[0], len(turns), following=tuple(turns[1:]))


def _conversation(where: str, messages: Any) -> _Asked:
    """A conversation up to its last message of the user."""
    if not isinstance(messages, list) or not messages:
        raise PromptError(f"{where}: {_shown(messages)}; expected a list of messages, each {MESSAGE_FORM}")
    read = [_message(f"{where}[{number}]", message) for number, message in enumerate(messages)]
    last = max((number for number, message in enumerate(read) if message.role == "user"), default=None)
    if last is None:
        raise PromptError(f"{where}: no message has the role user; expected one to continue")
    return _Asked(read[last].content, 1, tuple(read[:last]), len(read) - last - 1)


def _message(where: str, message: Any) -> Message:
    if not isinstance(message, dict):
        raise PromptError(f"{where}: {_shown(message)}; expected {MESSAGE_FORM}")
    _refuse_tools(where, message)
    role, content = message.get("role"), message.get("content")
    if role not in ROLES:
        said = "there is no role" if role is None else f"role {_shown(role)}"
        raise PromptError(f"{where}: {said}; expected one of {', '.join(ROLES)}")
    if isinstance(content, list) and content:
        content = "\n".join(_part(f"{where}.content[{number}]", part) for number, part in enumerate(content))
    if not (isinstance(content, str) and content):
        raise PromptError(f"{where}: content {_shown(content)}; expected text, or a list of parts that are text")
    return Message(role, content)


def _part(where: str, part: Any) -> str:
    """The text of one part of a content that is a list."""
    text = part.get("text") if isinstance(part, dict) and part.get("type") == "text" else None
    if not isinstance(text, str):
        raise PromptError(f'{where}: {_shown(part)}; expected {{"type": "text", "text"}}: only text is measured')
    return text


def _refuse_tools(where: str, holder: dict[str, Any]) -> None:
    """Raise `PromptError` where a row or a message has what would change the prompt and is not read."""
    for key in TOOLS:
        if holder.get(key):
            raise PromptError(f"{where}: has {key}: calls of tools are not measured; leave such conversations out")


def _shown(value: Any) -> str:
    text = repr(value)
    return text if len(text) <= LONGEST_SHOWN else f"{text[:LONGEST_SHOWN]}..."
