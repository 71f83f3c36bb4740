"""A pair: one target with one drafter, and the one tokenizer that feeds both."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Sequence
from dataclasses import dataclass, field
from functools import cached_property, partial
from typing import TYPE_CHECKING, Any, NamedTuple

from specdraft.config import Settings, load_group
from specdraft.drafters.base import Drafter, DrafterSpec, DrafterTraits, Target
from specdraft.drafters.draft_model import Model
from specdraft.errors import ConfigError, ModelError, NoWeightsError, PromptError
from specdraft.models.facts import describe_model, model_facts
from specdraft.models.files import ModelFiles, ModelInMemory, eos_ids, find_model
from specdraft.models.placement import device_type, dtype_label
from specdraft.models.prompt_reader import Messages, PromptReader
from specdraft.models.spec import ModelSpec, PairSpec
from specdraft.prompts import Message

if TYPE_CHECKING:
    from specdraft.models.cached_model import CachedModel
    from specdraft.models.check_result import SelfCheck

PROBE = "The quick brown fox, 12 + 34 = 46:\n\tdef f(x): return x  # na\u00efve"


class EncodedPrompt(NamedTuple):
    """A prompt's token ids.

    Attributes:
        ids: the tokens, as the target reads them.
        cut: its text was cut to `max_prompt_tokens`.
        marked_twice: its text holds marks already that the chat template or the tokenizer put around it again.
    """

    ids: list[int]
    cut: bool = False
    marked_twice: bool = False


@dataclass(frozen=True, eq=False)
class PairFiles:
    """A pair on disk, checked as far as that goes without loading weights.

    Attributes:
        spec: how the user named it.
        drafter: what proposes tokens for the target.
        target: the target's files.
        draft: the files of the drafter's weights; None of a drafter without any.
        encoded: prompts whose token ids are known, by what these depend on beside the target.
        chats: the messages that token ids were made of, for targets that are asked by chat.
    """

    spec: PairSpec
    drafter: DrafterSpec
    target: ModelFiles
    draft: ModelFiles | None
    encoded: dict[str, EncodedPrompt] = field(default_factory=dict, repr=False)
    chats: dict[tuple[int, ...], Messages] = field(default_factory=dict, repr=False)

    @property
    def label(self) -> str:
        """The pair's name, and its drafter where that is not its draft model."""
        return self.spec.name if self.drafter.label == "model" else f"{self.spec.name} with {self.drafter.label}"

    @property
    def models(self) -> list[ModelFiles]:
        """The files of every model that takes part."""
        return [self.target, *([self.draft] if self.draft else [])]

    @property
    def here(self) -> list[ModelFiles]:
        """The files of the models that are read here: of a served target there are no weights."""
        return [files for files in self.models if not files.spec.served]

    @property
    def bundled(self) -> bool:
        """Whether all models came with the package."""
        return all(files.spec.path.startswith("zoo:") for files in self.models)

    @property
    def shared_ids(self) -> int:
        """The ids below this one are those that all models have: what can be proposed."""
        return min(files.known_ids for files in self.models)

    @property
    def context_length(self) -> int | None:
        """The shortest of the contexts."""
        return min((files.context_length for files in self.models if files.context_length), default=None)

    @property
    def weights(self) -> tuple[str, str]:
        """Digests of the target's and the drafter's weights; the second is empty of a drafter without any."""
        return self.target.weights_hash, self.draft.weights_hash if self.draft else ""

    @cached_property
    def decides(self) -> dict[str, Any]:
        """What of a pair decides a combination's numbers: no device index, no weights, which may change."""
        models = [
            files.spec.decides | {"device": device_type(files.spec), "dtype": dtype_label(files)}
            for files in self.models
        ]
        return {"models": models, "drafter": self.drafter.as_dict()}

    def check(self) -> None:
        """Gate the models and compare their tokenizers.

        Raises:
            ModelError: a model cannot verify or draft trees, or the tokenizers differ.
            ConfigError: the drafter is not for this target.
        """
        self.drafter.check_target(self.target)
        for files in self.models:
            files.check_supported()
        if self.draft and self.drafter.for_encoders and self.draft.encodes != self.target.encodes:
            other, one = (self.draft, self.target) if self.target.encodes else (self.target, self.draft)
            raise ModelError(
                f"pair {self.spec.name}: {one.spec.path} is an encoder-decoder and {other.spec.path} is not; expected "
                "two encoder-decoders, or none"
            )
        own = self.draft and self.draft.tokenizer is not self.target.tokenizer
        if self.draft and own and (differing := self._differing(self.target.tokenizer, self.draft.tokenizer)):
            raise ModelError(
                f"pair {self.spec.name}: the tokenizers of {self.target.spec.path} and {self.draft.spec.path} differ "
                f"(first at {differing[0]!r}); both models must read the same token ids"
            )

    def check_memory(self) -> None:
        """Raise `ModelError` where the weights alone are more than their device holds; bundled models are small."""
        if others := [files for files in self.here if not files.spec.path.startswith("zoo:")]:
            from specdraft.models.sizes import check_memory

            check_memory(self.spec.name, others)

    def _differing(self, first: Any, second: Any) -> list[str]:
        """What two tokenizers do not read alike."""
        target, draft, common = first.get_vocab(), second.get_vocab(), self.shared_ids
        differing = sorted(
            {token for token, i in target.items() if i < common and draft.get(token) != i}
            | {token for token, i in draft.items() if i < common and target.get(token) != i}
        )
        plain = [tokenizer.encode(PROBE, add_special_tokens=False) for tokenizer in (first, second)]
        return differing or ([PROBE] if plain[0] != plain[1] else [])

    def encode(self, text: str, chat_template: str = "auto") -> list[int]:
        """Token ids as the target reads them: its chat template if it has one, else the tokenizer's defaults.

        Raises:
            PromptError: it is no text, the template fails, there are no tokens, or one of them is not in the target's
                vocabulary.
        """
        ids = self.reader(chat_template).ids(text)
        self._check_ids(ids)
        return ids

    def encode_plainly(self, text: str) -> list[int]:
        """Token ids of a text as it is, without a template or special tokens around it."""
        return list(self.target.tokenizer.encode(text, add_special_tokens=False))

    def reader(self, chat_template: str = "auto") -> PromptReader:
        """What turns texts into the target's token ids."""
        return PromptReader(self.target.tokenizer, self.target.spec.path, chat_template)

    def _check_ids(self, ids: list[int]) -> None:
        if not ids:
            raise PromptError("the prompt has no tokens")
        wrong = [token for token in ids if not 0 <= token < self.target.known_ids]
        if wrong:
            raise PromptError(f"the prompt needs token {wrong[0]}; the target knows {self.target.known_ids} ids")

    def encode_to_fit(
        self, text: str, chat_template: str, settings: Settings, depth: int, before: Messages = ()
    ) -> EncodedPrompt:
        """Token ids of a prompt: where they are more than `max_prompt_tokens`, it is cut on the left.

        Raises:
            PromptError: there are no tokens, or they do not fit the context with what is decoded after them.
        """
        most = settings.max_prompt_tokens
        depends_on = json.dumps([text, list(before), chat_template, most])
        key = hashlib.sha256(depends_on.encode()).hexdigest()[:16]
        if key not in self.encoded:
            self.encoded[key] = self._encode(text, chat_template, most, before)
        prompt = self.encoded[key]
        if self.target.spec.served and self.reader(chat_template).templated and not prompt.cut:
            self.chats[tuple(prompt.ids)] = [*before, Message("user", text)]
        return prompt._replace(ids=self.fit(prompt.ids, settings, depth))

    def _encode(self, text: str, chat_template: str, most: int | None, before: Messages) -> EncodedPrompt:
        reader = self.reader(chat_template)
        ids = reader.ids(text, before)
        cut = most is not None and len(ids) > most
        if most is not None and cut:
            ids = reader.end_ids(text, most, before)
        twice = any(map(reader.holds_marks, [*(message.content for message in before), text]))
        return EncodedPrompt(ids, cut, twice)

    def fit(self, ids: list[int], settings: Settings, depth: int) -> list[int]:
        """Token ids that are given as such, cut to `max_prompt_tokens` on the left. Raises as `encode_to_fit`."""
        self._check_ids(ids)
        ids = ids[-(settings.max_prompt_tokens or 0) :]
        beside = self.drafter.traits.reach
        limit, after = self.context_length, settings.max_new_tokens + max(depth, beside)
        if limit is not None and len(ids) + after > limit:
            hint = f"; max_prompt_tokens={limit - after} would cut it on the left" if limit > after else ""
            levels = f"{depth} draft levels" if depth >= beside else f"{beside} positions of a window"
            raise PromptError(
                f"{len(ids)} tokens + max_new_tokens={settings.max_new_tokens} + {levels} exceed the "
                f"context of {limit} of pair {self.spec.name}{hint}"
            )
        self._check_rotary_switch(len(ids) + after)
        return ids

    def _check_rotary_switch(self, length: int) -> None:
        for files in self.models:
            switch = files.rotary_switch
            if switch is not None and length > switch:
                raise PromptError(
                    f"{files.spec.path} changes its rotary factors after {switch} positions (LongRoPE or dynamic "
                    f"scaling), so cached states of a text that crosses them are wrong; this prompt with what is "
                    f"decoded after it needs {length}: lower max_prompt_tokens or max_new_tokens"
                )

    def decode(self, ids: Sequence[int], after: Sequence[int] = ()) -> str:
        """Text of token ids; where it stands `after` others, with the space that some tokenizers drop in front."""
        decode = partial(self.target.tokenizer.decode, skip_special_tokens=True)
        before, whole = (str(decode([*tokens])) for tokens in (after, (*after, *ids)))
        return whole.removeprefix(before) if whole.startswith(before) else str(decode([*ids]))


@dataclass
class Pair:
    """A pair with its weights in memory.

    Attributes:
        files: where it came from.
        target: the target.
        drafter: what proposes tokens for it.
        target_check: what the load-time self-check said of the target.
    """

    files: PairFiles
    target: CachedModel
    drafter: Drafter
    target_check: SelfCheck

    @property
    def name(self) -> str:
        return self.files.spec.name

    @property
    def label(self) -> str:
        """See `PairFiles.label`."""
        return self.files.label

    @property
    def eos_ids(self) -> frozenset[int]:
        """The target's end-of-sequence tokens."""
        return eos_ids(self.target.model.generation_config, self.target.model.config)

    @property
    def traits(self) -> DrafterTraits:
        """The drafter's."""
        return self.drafter.traits

    @property
    def target_facts(self) -> dict[str, Any]:
        """What recorded texts depend on of the target (see `model_facts`)."""
        return model_facts(self.target, self.files.target)

    @property
    def draft_facts(self) -> dict[str, Any]:
        """What the drafter's proposals depend on (see `Drafter.facts`)."""
        return self.drafter.facts()

    def describe(self) -> dict[str, Any]:
        """The target and the drafter, for the manifest: paths, revisions, weights, self-checks."""
        target = describe_model(self.target, self.files.target, self.target_check)
        return {"target": target, "draft": self.drafter.describe()}

    def encode(self, text: str, chat_template: str = "auto") -> list[int]:
        """See `PairFiles.encode`."""
        return self.files.encode(text, chat_template)

    def decode(self, ids: list[int]) -> str:
        """Text of token ids."""
        return self.files.decode(ids)

    def decode_token(self, token: int) -> str:
        """Text of one token; special tokens by their names."""
        text: str = self.files.target.tokenizer.decode([token])
        return text


def find_pair(spec: PairSpec, drafter: DrafterSpec | None = None, weights: bool = True) -> PairFiles:
    """Find the models' files; nothing is loaded.

    Args:
        spec: the pair.
        drafter: what drafts; left out: the pair's draft model.
        weights: False does without weights that are not here yet.

    Raises:
        ConfigError: the pair or the drafter cannot be meant.
        ModelError: see `find_model`.
    """
    drafter = drafter or Model()
    spec.check()
    drafter.check()
    _refuse_served(spec, drafter)
    draft = drafter.weights(spec)
    key = "pair.draft" if draft is spec.draft else "drafter"
    draft_files = None if draft is None else find_model(draft, key, weights)
    target = find_model(spec.target, "pair.target", weights)
    return PairFiles(spec, drafter, target, draft_files and drafter.complete(draft_files, spec, target))


def _refuse_served(spec: PairSpec, drafter: DrafterSpec) -> None:
    """Raise `NoWeightsError` for a drafter that computes with its target, where that is served elsewhere."""
    if spec.target.served and drafter.traits.needs_target:
        raise NoWeightsError(
            f"drafter={drafter.kind} computes with the target's own states or weights; pair.target.server gives none"
        )


def load_pair(
    spec: PairSpec | PairFiles | str, drafter: DrafterSpec | None = None, target_of: Pair | None = None
) -> Pair:
    """Load a pair and check its models against sequential decoding.

    Args:
        spec: a pair, or the name of a pair config (as `zoo`).
        drafter: what drafts; left out: the pair's draft model.
        target_of: a pair whose target is used again if it is the same model.

    Raises:
        ConfigError: there is no pair of this name.
        ModelError: see `find_pair`, `PairFiles.check`; or memory ran out.
    """
    named = load_group("pair", spec, PairSpec) if isinstance(spec, str) else spec
    files = named if isinstance(named, PairFiles) else find_pair(named, drafter)
    files.check()
    files.check_memory()
    if target_of and target_of.files.target.spec == files.target.spec:
        return _loaded(files, target_of.target, target_of.target_check)
    return _loaded(files)


def _loaded(files: PairFiles, target: CachedModel | None = None, check: SelfCheck | None = None) -> Pair:
    """A pair with its weights in memory; a target that is there already is not loaded again."""
    if target is None or check is None:
        from specdraft.models.loading import load_checked

        target, check = load_checked(files.target)
    drafter = files.drafter.load(files.draft, Target(files.target, lambda: target))
    return Pair(files, target, drafter, check)


def pair_of_models(target_model: Any, draft_model: Any, tokenizer: Any, drafter: DrafterSpec) -> Pair:
    """A pair of `transformers` models that are in memory already, checked as `load_pair` does.

    Raises:
        ConfigError: the drafter needs a draft model and there is none, or it has weights of its own elsewhere.
        ModelError: a model cannot verify or draft trees.
    """
    drafter.check()
    spec = PairSpec("in-memory", ModelSpec("target"), ModelSpec("draft"))
    draft, in_memory = None, ModelInMemory(spec.target, target_model, tokenizer)
    weights = drafter.weights(spec)
    if weights is spec.draft:
        if draft_model is None:
            raise ConfigError(f"drafter={drafter.kind} needs a draft model")
        draft = drafter.complete(ModelInMemory(spec.draft, draft_model, tokenizer), spec, in_memory)
    elif weights is not None:
        draft = drafter.complete(find_model(weights, "drafter"), spec, in_memory)
    files = PairFiles(spec, drafter, in_memory, draft)
    files.check()
    return _loaded(files)
