"""How a user names a model and a pair."""

from __future__ import annotations

from dataclasses import dataclass, field

from specdraft.errors import ConfigError, check_name, did_you_mean

DTYPES = ("auto", "float32", "bfloat16", "float16")
QUANTIZE = ("none", "8bit", "4bit")


@dataclass
class ModelSpec:
    """One causal language model.

    Attributes:
        path: a folder, a hub id, or `zoo:NAME` for a bundled model.
        dtype: `auto` is float32 on a CPU and the checkpoint's own 16-bit type (else bfloat16) on a GPU.
        device: `auto` is CUDA if there is any, else the CPU; `cuda:1` and the like name one;
            `spread` divides the layers over all GPUs (needs accelerate).
        quantize: `none`, `8bit` or `4bit` (needs bitsandbytes and a GPU).
    """

    path: str = ""
    revision: str | None = None
    dtype: str = "auto"
    device: str = "auto"
    quantize: str = "none"
    trust_remote_code: bool = False

    def check(self, key: str) -> None:
        """Raise `ConfigError` for values that name no model, type or quantisation."""
        if not self.path:
            raise ConfigError(f"{key}.path is empty; expected a folder or a hub id")
        check_name(f"{key}.path", self.path)
        for name, known in (("dtype", DTYPES), ("quantize", QUANTIZE)):
            if getattr(self, name) not in known:
                raise ConfigError(
                    f"{key}.{name}={getattr(self, name)!r} is not known{did_you_mean(getattr(self, name), known)}"
                )
        if self.trust_remote_code:
            raise ConfigError(f"{key}.trust_remote_code=true is refused: code from a model repository is never run")


@dataclass
class KnownSize:
    """A model's geometry, as its publishers give it: for a dry run that cannot read its config.

    Attributes:
        parameters: all of them.
        layers, cached_heads, head_width: of the attention, heads being those that keys and values are cached of.
        vocabulary: ids.
    """

    parameters: int = 0
    layers: int = 0
    cached_heads: int = 0
    head_width: int = 0
    vocabulary: int = 0


@dataclass
class PairSpec:
    """One target, and the weights that drafters of it have.

    Attributes:
        name: what the `pair` column says.
        target, draft: the target and its draft model.
        heads: drafter kind -> folder or `zoo:NAME` of the weights of drafters other than the draft model.
        sizes: `target` or `draft` -> its geometry, where it is known beforehand.
    """

    name: str = "custom"
    target: ModelSpec = field(default_factory=ModelSpec)
    draft: ModelSpec = field(default_factory=ModelSpec)
    heads: dict[str, str] = field(default_factory=dict)
    sizes: dict[str, KnownSize] = field(default_factory=dict)

    def check(self) -> None:
        """Raise `ConfigError` for a name that cannot be printed, or a target that cannot be meant."""
        check_name("pair.name", self.name)
        self.target.check("pair.target")
