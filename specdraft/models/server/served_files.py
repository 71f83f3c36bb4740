"""A target that is served elsewhere: its config and tokenizer are here, the rest is what the server says."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any

from specdraft.errors import ModelError, ServerError
from specdraft.models.check_result import SelfCheck
from specdraft.models.files import ModelFiles, check_generation_config, reading
from specdraft.models.server.connection import Connection
from specdraft.models.server.identity import Identity, identify
from specdraft.models.server.served_model import ServedModel

# Nothing was run here. Servers compute in 16-bit types: two logits of a size of 16 are rounded by so much in bfloat16.
UNCHECKED = SelfCheck(0.0, 1.0, 0.0625, 0, ("the model, which is served elsewhere",))


@dataclass(frozen=True, eq=False)
class ServedFiles(ModelFiles):
    """The folder of a served model's config and tokenizer.

    Attributes:
        key: the config key to name in errors, as `pair.target`.
    """

    key: str = field(kw_only=True)

    def __getstate__(self) -> dict[str, Any]:
        """See `ModelFiles.__getstate__`: a connection stays where it is."""
        return {name: value for name, value in super().__getstate__().items() if name != "model"}

    @cached_property
    def identity(self) -> Identity:
        """Which model it is. Raises `ServerError`."""
        return identify(Connection(self.spec.server, f"{self.key}.server"), self.spec.server.model)

    @cached_property
    def model(self) -> ServedModel:
        """The model, to be asked. Raises `ServerError`."""
        given = (self.spec.server, f"{self.key}.server", self.tokenizer, self.known_ids)
        return ServedModel(*given, self.identity)

    @property
    def reached(self) -> bool:
        """Whether the server said by itself which model it is."""
        return not self.out_of_reach

    def recall(self, identity: Identity, error: ServerError) -> None:
        """Which model it was when it answered last; now it does not."""
        vars(self).update(identity=identity)
        self.lose(str(error))

    def lose(self, why: str) -> None:
        """It is not to be asked again."""
        vars(self)["lost"] = why

    @property
    def out_of_reach(self) -> str:
        """Why it is not to be asked; nothing while it is."""
        return str(vars(self).get("lost", ""))

    def check_supported(self) -> None:
        """See `ModelFiles.check_supported`: what computes it is not here."""
        if getattr(self.config, "is_encoder_decoder", False):
            raise ModelError(f"{self.spec.path}: an encoder-decoder behind a server is not asked for")
        with reading(self.spec.path, "no usable generation_config.json"):
            check_generation_config(self.folder)
        known, named = self.identity.vocabulary, max(self.tokenizer.get_vocab().values(), default=-1) + 1
        if known is not None and known < named and self.reached:
            raise ModelError(
                f"{self.key}.path={self.spec.path}: its tokenizer has {named} ids, and the served model "
                f"{self.identity.model} {known}: it is another model's"
            )

    @cached_property
    def context_length(self) -> int | None:
        """See `ModelFiles.context_length`: what the server takes, where that is less."""
        own = getattr(self.config.get_text_config(), "max_position_embeddings", None)
        return min((int(length) for length in (own, self.identity.context) if length), default=None)

    @cached_property
    def outline(self) -> str:
        """See `ModelFiles.outline`."""
        return self._digest(self.identity.as_dict())

    @cached_property
    def weights_hash(self) -> str:
        """See `ModelFiles.weights_hash`: of config, generation settings, tokenizer, and what the server says."""
        return self._digest({**self.identity.decides, "api": self.spec.server.api})[:16]

    def _digest(self, told: Mapping[str, Any]) -> str:
        return hashlib.sha256((self.texts_digest + json.dumps(told, sort_keys=True)).encode()).hexdigest()
