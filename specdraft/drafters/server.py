"""A served model as a drafter: chains of its greedy tokens, asked for over an OpenAI-compatible API."""

from __future__ import annotations

from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from specdraft.config import label
from specdraft.drafters.base import (
    BY_RANK,
    Annotation,
    DrafterSpec,
    DrafterTraits,
    Drawing,
    Prefilled,
    RecordedText,
    Target,
)
from specdraft.drafters.rank_only import RankOnlyDrafter
from specdraft.errors import AnswerError, ConfigError
from specdraft.models.files import ModelFiles
from specdraft.models.server.served_model import ServedModel
from specdraft.models.spec import ServerSpec
from specdraft.trees.draft_tree import DraftTree
from specdraft.trees.shapes import Plan

if TYPE_CHECKING:
    import torch

SAMPLE = "The quick brown fox"  # is continued, to see whether the server reads the target's tokens
AT_ONCE = 16  # tokens that are asked for along a recorded text
ASKED = ("url", "key_env", "concurrency", "timeout_s", "retries")  # how it is asked: decides no proposal


@dataclass
class Server(DrafterSpec):
    """A served model that reads the target's tokens; it proposes the chain of its own greedy tokens.

    Attributes:
        url, model, key_env, concurrency, timeout_s, retries: see `ServerSpec`.
    """

    kind: str = "server"
    url: str = ""
    model: str | None = None
    key_env: str | None = None
    concurrency: int = ServerSpec.concurrency
    timeout_s: float = ServerSpec.timeout_s
    retries: int = ServerSpec.retries

    @property
    def label(self) -> str:
        """See `DrafterSpec.label`."""
        return label(self, "path", "model", *ASKED) + (f"-{self.model}" if self.model else "")

    @property
    def traits(self) -> DrafterTraits:
        """See `DrafterSpec.traits`."""
        return DrafterTraits(probabilities=False, draws=False, owns_weights=False, guesses=1)

    def check(self) -> None:
        """See `DrafterSpec.check`."""
        if not self.url:
            raise ConfigError(f"drafter.url is empty; drafter={self.kind} expects it as http://host:8000/v1")
        self._server.check("drafter")

    @property
    def _server(self) -> ServerSpec:
        return ServerSpec(self.url, self.model, "completions", *(getattr(self, name) for name in ASKED[1:]))

    def check_target(self, target: ModelFiles) -> None:
        """See `DrafterSpec.check_target`: the server answers, in the target's tokens."""
        super().check_target(target)
        self._served(target).probe(target.tokenizer.encode(SAMPLE))

    def _served(self, target: ModelFiles) -> ServedModel:
        return ServedModel(self._server, "drafter", target.tokenizer, target.known_ids)

    def load(self, weights: ModelFiles | None, target: Target) -> ServerDrafter:
        """See `DrafterSpec.load`: there is nothing to load."""
        model = self._served(target.files)
        model.probe(target.files.tokenizer.encode(SAMPLE))
        return ServerDrafter(self, model, target.files.eos_ids)

    def as_dict(self) -> dict[str, Any]:
        """See `DrafterSpec.as_dict`."""
        return {name: value for name, value in super().as_dict().items() if name not in ASKED}


class ServerDrafter(RankOnlyDrafter):
    """See `Server`.

    Args:
        spec: which drafter it is.
        model: to be asked.
        stops: the target's end-of-sequence tokens.
    """

    _spec: Server

    def __init__(self, spec: Server, model: ServedModel, stops: frozenset[int]) -> None:
        super().__init__(spec)
        self._model, self._stops = model, stops
        self._text: list[int] = []
        self._prompt_tokens = 0

    def begin(self, prompt: Prefilled) -> None:
        """See `Drafter.begin`."""
        self._text, self._prompt_tokens = list(prompt.token_ids), len(prompt.token_ids)

    def rewind(self) -> None:
        """See `Drafter.rewind`."""
        del self._text[self._prompt_tokens :]

    def draft(self, root: int, plan: Plan, drawing: Drawing = BY_RANK) -> DraftTree:
        """See `Drafter.draft`: behind the end of its text the last token is repeated, which no text goes on with."""
        if plan.topology is None or not plan.topology.is_chain:
            raise ConfigError(f"drafter={self._spec.kind} proposes chains; expected tree=chain")
        self._text.append(root)
        size = plan.topology.num_nodes
        chain = self._chain(self._text, size)
        return DraftTree(plan.topology, [root, *chain, *chain[-1:] * (size - len(chain))])

    def commit(self, tree: DraftTree, accepted_nodes: Sequence[int], hidden: torch.Tensor | None = None) -> None:
        """See `Drafter.commit`."""
        tokens = tree.token_list()
        self._text += [tokens[node] for node in accepted_nodes]

    def _chain(self, text: Sequence[int], most: int) -> list[int]:
        """Its greedy tokens after a text, one at least. Raises `ServerError`."""
        try:
            told = self._model.continuation(text, self._model.ask(text, most), self._stops)
            if not told.tokens or (len(told.tokens) < most and not told.stopped):
                raise AnswerError(f"it gave {len(told.tokens)} tokens of {most} (its context may be full)")
        except AnswerError as error:
            raise self._model.useless(error) from error
        return told.tokens[:most]

    def annotate(self, texts: Sequence[RecordedText]) -> list[Annotation]:
        """See `Drafter.annotate`: rank 0 where the text goes on as it would have; it is asked once for each token that
        it would not have said, and every `AT_ONCE` tokens besides."""
        with ThreadPoolExecutor(self._spec.concurrency) as pool:
            return [*pool.map(self._annotation, texts)]

    def _annotation(self, text: RecordedText) -> Annotation:
        tokens, prompt = text.tokens.tolist(), list(text.prompt_ids)
        ranks, at = np.full(len(tokens), -1, dtype=np.int32), 1
        while at < len(tokens):
            chain = np.array(self._chain([*prompt, *tokens[:at]], min(AT_ONCE, len(tokens) - at)))
            equal = int(np.cumprod(chain == text.tokens[at : at + len(chain)]).sum())
            ranks[at : at + equal] = 0
            at += equal + (equal < len(chain))
        nothing, none = np.zeros(len(tokens), dtype=np.float32), np.empty((len(tokens), 0))
        return Annotation(ranks, none.astype(np.int32), none.astype(np.float32), nothing)

    def facts(self) -> dict[str, Any]:
        """See `Drafter.facts`."""
        return {"drafter": self._spec.as_dict(), "server": self._model.identity.decides, "stops": sorted(self._stops)}

    def describe(self) -> dict[str, Any]:
        """See `Drafter.describe`."""
        return self._spec.as_dict() | {"served": self._model.identity.as_dict()}
