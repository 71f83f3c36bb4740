"""A loaded pair: target, draft model, and the one tokenizer that feeds both."""

from __future__ import annotations

import warnings
from dataclasses import dataclass, field
from typing import Any

import torch

from specdraft.errors import ConfigError, ModelError, PromptError
from specdraft.models.cached_model import CachedModel
from specdraft.models.files import ModelFiles, find_model, first_line
from specdraft.models.self_check import SelfCheck, self_check
from specdraft.models.spec import ModelSpec, PairSpec

PROBE = "The quick brown fox, 12 + 34 = 46:\n\tdef f(x): return x  # naïve"


@dataclass(frozen=True, eq=False)
class PairFiles:
    """A pair on disk, checked as far as that goes without loading weights."""

    spec: PairSpec
    target: ModelFiles
    draft: ModelFiles

    @property
    def vocab(self) -> int:
        """The ids that both models have (vocabularies are often padded to different sizes)."""
        return min(int(f.config.get_text_config().vocab_size) for f in (self.target, self.draft))

    @property
    def context_length(self) -> int | None:
        """The shorter of the two contexts."""
        known = [f.context_length for f in (self.target, self.draft) if f.context_length]
        return min(known) if known else None

    def check(self) -> None:
        """Gate both models and compare their tokenizers.

        Raises:
            ModelError: a model cannot verify or draft trees, or the tokenizers differ.
        """
        self.target.check_supported()
        self.draft.check_supported()
        first, second = (f.tokenizer.get_vocab() for f in (self.target, self.draft))
        common = min(self.vocab, *(max(v.values(), default=-1) + 1 for v in (first, second)))
        differing = sorted(
            {t for t, i in first.items() if i < common and second.get(t) != i}
            | {t for t, i in second.items() if i < common and first.get(t) != i}
        )
        if not differing and self.target.tokenizer.encode(PROBE) != self.draft.tokenizer.encode(PROBE):
            differing = [PROBE]
        if differing:
            raise ModelError(
                f"pair {self.spec.name}: the tokenizers of {self.target.spec.path} and {self.draft.spec.path} differ "
                f"(first at {differing[0]!r}); both models must read the same token ids"
            )

    def encode(self, text: str, chat_template: str = "auto") -> list[int]:
        """Token ids for both models: the target's chat template if it has one, else the tokenizer's defaults.

        Raises:
            PromptError: the template fails, there are no tokens, or one of them is not in both vocabularies.
        """
        from jinja2 import TemplateError

        tokenizer = self.target.tokenizer
        if chat_template == "auto" and getattr(tokenizer, "chat_template", None):
            message = [{"role": "user", "content": text}]
            try:
                text = tokenizer.apply_chat_template(message, add_generation_prompt=True, tokenize=False)
            except TemplateError as error:
                hint = "prompts.chat_template=none does without it"
                raise PromptError(
                    f"the chat template of {self.target.spec.path} fails: {first_line(error)}; {hint}"
                ) from error
            ids = tokenizer.encode(text, add_special_tokens=False)
        else:
            ids = tokenizer.encode(text)
        if not ids:
            raise PromptError("the prompt has no tokens")
        if max(ids) >= self.vocab:
            raise PromptError(f"the prompt needs token {max(ids)}, but the models share only {self.vocab} ids")
        return list(ids)

    def decode(self, ids: list[int]) -> str:
        """Text of token ids."""
        text: str = self.target.tokenizer.decode(ids, skip_special_tokens=True)
        return text


@dataclass
class Pair:
    """A pair with its weights in memory."""

    files: PairFiles
    target: CachedModel
    draft: CachedModel
    self_checks: dict[str, SelfCheck] = field(default_factory=dict)

    @property
    def name(self) -> str:
        return self.files.spec.name

    @property
    def eos_ids(self) -> frozenset[int]:
        """The target's end-of-sequence tokens."""
        eos = self.target.model.generation_config.eos_token_id
        if eos is None:
            eos = self.target.model.config.get_text_config().eos_token_id
        return frozenset() if eos is None else frozenset([eos] if isinstance(eos, int) else eos)

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


def find_pair(spec: PairSpec, weights: bool = True) -> PairFiles:
    """Find both models' files; nothing is loaded. Raises `ModelError`."""
    spec.check()
    return PairFiles(
        spec, find_model(spec.target, "pair.target", weights), find_model(spec.draft, "pair.draft", weights)
    )


def load_pair(spec: PairSpec | PairFiles | str, target_of: Pair | None = None) -> Pair:
    """Load a pair and check both models against sequential decoding.

    Args:
        spec: a pair, or the name of a pair config (as `zoo`).
        target_of: a pair whose target is used again if it is the same model.

    Raises:
        ConfigError: there is no pair of this name.
        ModelError: see `find_pair`, `PairFiles.check`; or memory ran out.
    """
    if isinstance(spec, str):
        spec = _named(spec)
    files = spec if isinstance(spec, PairFiles) else find_pair(spec)
    files.check()
    if target_of and target_of.files.target.spec == files.target.spec and target_of.target.vocab == files.vocab:
        target, target_check = target_of.target, target_of.self_checks["target"]
    else:
        target = load_model(files.target, files.vocab)
        target_check = self_check(target, files.target.spec.path)
    draft = load_model(files.draft, files.vocab)
    checks = {"target": target_check, "draft": self_check(draft, files.draft.spec.path)}
    return Pair(files, target, draft, checks)


def _named(name: str) -> PairSpec:
    from specdraft.config import load_group

    spec = load_group("pair", name, PairSpec)
    assert isinstance(spec, PairSpec)
    return spec


def resolve_device(spec: ModelSpec) -> torch.device:
    """The device that a spec means; raises `ConfigError` for one that is not there."""
    if spec.device in ("auto", "spread"):
        return torch.device("cuda" if torch.cuda.is_available() else "cpu")
    try:
        device = torch.device(spec.device)
    except RuntimeError as error:
        raise ConfigError(
            f"device={spec.device!r} is not a device; expected auto, cpu, cuda, cuda:N or spread"
        ) from error
    if device.type == "cuda" and (device.index or 0) >= torch.cuda.device_count():
        raise ConfigError(f"device={spec.device}: this machine has {torch.cuda.device_count()} CUDA devices")
    return device


def resolve_dtype(files: ModelFiles, device: torch.device) -> torch.dtype:
    """The weights' type: what the spec says, else float32 on a CPU and a 16-bit type on a GPU."""
    if files.spec.dtype != "auto":
        named: torch.dtype = getattr(torch, files.spec.dtype)
        return named
    if device.type == "cpu":
        return torch.float32
    own = files.config.get_text_config().dtype
    usable = torch.bfloat16 if torch.cuda.is_bf16_supported(including_emulation=False) else torch.float16
    return own if own == torch.float16 else usable


def load_model(files: ModelFiles, vocab: int) -> CachedModel:
    """Read the weights onto the device.

    Raises:
        ModelError: the weights cannot be read, a library for quantisation is missing, or memory ran out.
    """
    from safetensors import SafetensorError
    from transformers import AutoModelForCausalLM, BitsAndBytesConfig
    from transformers.utils import logging as transformers_logging

    device = resolve_device(files.spec)
    options: dict[str, Any] = {
        "dtype": resolve_dtype(files, device),
        "use_safetensors": True,
        "trust_remote_code": False,
    }
    if files.spec.quantize != "none":
        bits = {"8bit": "load_in_8bit", "4bit": "load_in_4bit"}[files.spec.quantize]
        options["quantization_config"] = BitsAndBytesConfig(**{bits: True, "bnb_4bit_compute_dtype": options["dtype"]})
    if files.spec.device == "spread" or files.spec.quantize != "none":
        options["device_map"] = "auto" if files.spec.device == "spread" else {"": device}
    transformers_logging.disable_progress_bar()
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # of `transformers`, about generation settings that are not used here
            model, report = AutoModelForCausalLM.from_pretrained(files.folder, output_loading_info=True, **options)
            model = model if "device_map" in options else model.to(device)
    except ImportError as error:
        raise ModelError(
            f"{files.spec.path}: {first_line(error)} (install the extra: pip install 'specdraft[quantize]')"
        ) from error
    except torch.cuda.OutOfMemoryError as error:
        raise ModelError(f"{files.spec.path}: out of memory on {device} while loading") from error
    except (OSError, ValueError, RuntimeError, SafetensorError) as error:
        raise ModelError(f"{files.spec.path}: the weights cannot be loaded: {first_line(error)}") from error
    if missing := sorted(report["missing_keys"]):  # they would be random
        raise ModelError(
            f"{files.spec.path}: the weights are incomplete: {len(missing)} tensors are missing, as {missing[0]}"
        )
    return CachedModel(model.eval(), vocab)
