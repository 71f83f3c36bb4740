"""Which model a server has, as far as it says so: what recorded texts depend on instead of weights."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from typing import Any

from specdraft.errors import AnswerError, ServerError, did_you_mean
from specdraft.models.server.answer import read_answer
from specdraft.models.server.connection import Connection

TOLD = ("root", "parent")  # of `/models`: what a name stands for; the rest is of the moment, or of this server
OF_META = ("vocab_type", "n_vocab", "n_ctx_train", "n_embd", "n_params", "size", "ftype")  # of llama.cpp's


@dataclass(frozen=True)
class Identity:
    """A served model.

    Attributes:
        model: the served name.
        owner: what serves it, as it says.
        told: what else it says of the model: no address, no date.
        context: positions that it serves; None: it does not say.
        vocabulary: ids that it knows; None: it does not say.
    """

    model: str
    owner: str = ""
    told: dict[str, Any] = field(default_factory=dict)
    context: int | None = None
    vocabulary: int | None = None

    @property
    def decides(self) -> dict[str, Any]:
        """What its texts depend on."""
        return {"model": self.model, "told": self.told}

    def as_dict(self) -> dict[str, Any]:
        """To be kept."""
        return asdict(self)


def identify(connection: Connection, model: str | None) -> Identity:
    """Which model it is that a server is to be asked for.

    Raises:
        ServerError: nobody answers, or there is no such model, or several and none is named.
    """
    try:
        listed = connection.get("/models")
        cards = {str(card["id"]): card for card in read_answer(lambda: list(listed["data"]), connection.name)}
    except (AnswerError, KeyError, TypeError) as error:
        said = str(error) if isinstance(error, AnswerError) else f"{connection.name}: /models lists no models"
        hint = "; expected the address of an API, as http://host:8000/v1" if connection.unversioned else ""
        raise ServerError(said + hint) from error
    if model is None and len(cards) != 1:
        raise ServerError(f"{connection.name}: serves {len(cards)} models; name one as model={_first(cards)}")
    name = next(iter(cards)) if model is None else model
    if name not in cards:
        raise ServerError(f"{connection.name}: serves no model {name!r}{did_you_mean(name, map(_in_a_line, cards))}")
    return _read(name, cards[name], connection)


def _first(cards: Mapping[str, Any]) -> str:
    return _in_a_line(next(iter(cards), "NAME"))


def _in_a_line(name: str) -> str:
    return " ".join(name.split())


def _read(name: str, card: Mapping[str, Any], connection: Connection) -> Identity:
    meta: dict[str, Any] = card["meta"] if isinstance(card.get("meta"), dict) else {}
    told = {key: card[key] for key in TOLD if card.get(key) is not None}
    told |= {key: meta[key] for key in OF_META if meta.get(key) is not None}
    owner, context = str(card.get("owned_by", "")), card.get("max_model_len") or meta.get("n_ctx")
    if owner == "llamacpp":
        told |= _built(connection)
    elif owner not in ("vllm", "sglang"):
        told["owned_by"] = owner
    whole = [value if isinstance(value, int) and value > 0 else None for value in (context, meta.get("n_vocab"))]
    return Identity(name, owner, told, *whole)


def _built(connection: Connection) -> dict[str, Any]:
    """Which build of llama.cpp it is: its numbers depend on it, as those of a model here on its libraries."""
    try:
        built = connection.get("/props", native=True)["build_info"]
    except (AnswerError, KeyError, TypeError):
        return {}
    return {"build": str(built)}
