"""How a user names a model and a pair."""

from __future__ import annotations

import re
from dataclasses import asdict, dataclass, field
from math import inf
from typing import Any
from urllib.parse import urlsplit

from specdraft.errors import ConfigError, check_name, did_you_mean

DTYPES = ("auto", "float32", "bfloat16", "float16")
QUANTIZE = ("none", "8bit", "4bit")
ATTENTION = ("auto", "own", "grouped", "triton")
SPREAD = "spread"
APIS = ("completions", "chat")


@dataclass
class ServerSpec:
    """Where a model is served, and how it is asked.

    Attributes:
        url: of an OpenAI-compatible API, as `http://host:8000/v1`; empty: the model is read here.
        model: the served name; left out: the only one that `/models` lists.
        api: `completions` asks with token ids (or the text that they are), `chat` with messages, around which the
            server puts its own chat template.
        key_env: the environment variable that holds the API key; left out: `SPECDRAFT_API_KEY`, else `OPENAI_API_KEY`.
        concurrency: requests that are under way at once.
        timeout_s: of one request.
        retries: of a request that came to nothing, later and later.
    """

    url: str = ""
    model: str | None = None
    api: str = "completions"
    key_env: str | None = None
    concurrency: int = 4
    timeout_s: float = 600.0
    retries: int = 4

    @property
    def decides(self) -> dict[str, str | None]:
        """What its texts depend on: not where it is, nor how often it is asked."""
        return {"model": self.model, "api": self.api}

    def check(self, key: str) -> None:
        """Raise `ConfigError` for values that cannot be meant; without a URL, for any."""
        if not self.url:
            if (given := [name for name in asdict(self) if getattr(self, name) != getattr(ServerSpec(), name)]) != []:
                raise ConfigError(f"{key}.{given[0]}={getattr(self, given[0])} has no effect without {key}.url")
            return
        check_url(f"{key}.url", self.url)
        if self.api not in APIS:
            raise ConfigError(f"{key}.api={self.api!r} is not known{did_you_mean(self.api, APIS)}")
        if self.model is not None:
            check_name(f"{key}.model", self.model)
        for name, least in (("concurrency", 1), ("retries", 0)):
            if (value := getattr(self, name)) < least:
                raise ConfigError(f"{key}.{name}={value} is out of range; expected {least} or more")
        if not 0 < self.timeout_s < inf:
            raise ConfigError(f"{key}.timeout_s={self.timeout_s} is out of range; expected seconds, above 0")


def check_url(key: str, url: str) -> None:
    """Raise `ConfigError` for what is no plain address: nothing secret may stand in one, as it is written down."""
    try:
        parts = urlsplit(url)
        whole = parts.scheme in ("http", "https") and bool(parts.hostname) and (parts.port is None or parts.port > 0)
    except ValueError:
        whole = False
    if not whole:
        raise ConfigError(f"{key}={url!r} is no address; expected as http://host:8000/v1")
    if parts.username or parts.password or parts.query or parts.fragment:
        raise ConfigError(
            f"{key} holds a user, a password or a query, and is written into results; expected as "
            f"http://host:8000/v1, the key in an environment variable ({key.removesuffix('url')}key_env)"
        )


@dataclass
class ModelSpec:
    """One causal language model.

    Attributes:
        path: a folder, a hub id, or `zoo:NAME` for a bundled model.
        dtype: `auto` is float32 on a CPU and the checkpoint's own 16-bit type (else bfloat16) on a GPU.
        device: `auto` is CUDA if there is any, else the CPU; `cuda:1` and the like name one;
            `spread` divides the layers over all GPUs, `spread:2` over two (needs accelerate).
        quantize: `none`, `8bit` or `4bit` (needs bitsandbytes and a GPU).
        attention: how its layers attend: `own`, as `transformers` does it; `grouped`: heads that share keys read them
            where they are; `triton`: our tree attention kernel (needs a GPU). `auto` is `grouped` on a CPU, else `own`.
        server: of a target that is served elsewhere; `path` then has its config and tokenizer, and no weights are read.
    """

    path: str = ""
    revision: str | None = None
    dtype: str = "auto"
    device: str = "auto"
    quantize: str = "none"
    trust_remote_code: bool = False
    attention: str = "auto"
    server: ServerSpec = field(default_factory=ServerSpec)

    @property
    def served(self) -> bool:
        """Whether it is asked over the network."""
        return bool(self.server.url)

    @property
    def spread(self) -> bool:
        """Whether its layers are divided over several devices."""
        return self.device.partition(":")[0] == SPREAD

    @property
    def cards(self) -> int | None:
        """Over how many; None: over all that there are, or it is not divided."""
        return int(count) if self.spread and (count := self.device.partition(":")[2]) else None

    @property
    def decides(self) -> dict[str, Any]:
        """What of it decides numbers; as it was before there were servers, of a model that is read here."""
        told = {name: value for name, value in asdict(self).items() if name not in ("server", "attention")}
        chosen = {} if self.attention == "auto" else {"attention": self.attention}
        return told | chosen | ({"server": self.server.decides} if self.served else {})

    def check(self, key: str) -> None:
        """Raise `ConfigError` for values that name no model, type or quantisation."""
        if not self.path:
            raise ConfigError(f"{key}.path is empty; expected a folder or a hub id")
        check_name(f"{key}.path", self.path)
        for name, known in (("dtype", DTYPES), ("quantize", QUANTIZE), ("attention", ATTENTION)):
            if getattr(self, name) not in known:
                raise ConfigError(
                    f"{key}.{name}={getattr(self, name)!r} is not known{did_you_mean(getattr(self, name), known)}"
                )
        if self.spread and not re.fullmatch(r"spread(:[1-9]\d*)?", self.device):
            raise ConfigError(f"{key}.device={self.device!r} is not a device; expected spread, or spread:N for N GPUs")
        if self.trust_remote_code:
            raise ConfigError(f"{key}.trust_remote_code=true is refused: code from a model repository is never run")
        self.server.check(f"{key}.server")
        if self.served:
            for name in ("dtype", "device", "quantize", "attention"):
                if (value := getattr(self, name)) != getattr(ModelSpec(), name):
                    raise ConfigError(f"{key}.{name}={value} has no effect with {key}.server.url: no weights are read")


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
        if self.draft.served:
            raise ConfigError(
                f"pair.draft.server.url={self.draft.server.url}: a draft model is read here; a served one proposes "
                "chains as drafter=server drafter.url=URL"
            )
