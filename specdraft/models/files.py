"""Find a model's files and say clearly what is missing, before any weight is read."""

from __future__ import annotations

import copy
import hashlib
import logging
import re
import sys
import warnings
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from functools import cached_property
from importlib.resources import files
from pathlib import Path
from typing import Any

from specdraft.errors import ModelError, OutOfReachError, UserError, did_you_mean
from specdraft.models.gate import check_raw_config, check_supported, encodes, rotary_scalings, start_token
from specdraft.models.spec import ModelSpec
from specdraft.models.weights import check_complete, header, tensor_shapes, weight_files

LENGTH_DEPENDENT = {"longrope", "dynamic"}  # rotary scalings that change with the length of the text
TEXT_FILES = ["*.json", "*.txt", "*.model", "*.jinja"]
ADAPTER = "adapter_config.json"
# The engine chooses these, whatever a config.json says: attention by SDPA where a model has it, else eager.
CHOSEN: dict[str, Any] = {"attn_implementation": None, "experts_implementation": None}
# what is known of a folder without reading weights, and takes `transformers` to find out
REMEMBERED = (
    "known_ids",
    "context_length",
    "rotary_switch",
    "eos_ids",
    "stored_dtype",
    "quantised",
    "dated",
    "layers",
    "encodes",
)
SPEAKING = (OSError, ValueError)  # errors whose text says what is wrong; of others the type is said too


@dataclass(frozen=True, eq=False)
class ModelFiles:
    """A model on disk: its folder, and what can be known without loading weights.

    Attributes:
        spec: how the user named it.
        folder: where it is.
        beside: files elsewhere that decide with it what a drafter proposes, as an alignment.
    """

    spec: ModelSpec
    folder: Path
    beside: tuple[Path, ...] = ()

    @property
    def in_memory(self) -> Any:
        """The model itself, where it was handed over; None of one on disk."""
        return None

    def __getstate__(self) -> dict[str, Any]:
        """What is pickled: not what was read from the folder into objects, which is large, and soon read again."""
        return {name: value for name, value in vars(self).items() if name not in ("config", "tokenizer", "skeleton")}

    @cached_property
    def config(self) -> Any:
        """The `transformers` config.

        Raises:
            ModelError: there is none, or this `transformers` does not know the architecture.
        """
        from transformers import AutoConfig

        with reading(self.spec.path, "no usable config.json"):
            check_raw_config(self.folder / "config.json")
            config = AutoConfig.from_pretrained(self.folder, trust_remote_code=False)
            for part in (config, config.get_text_config()):
                part.return_dict, part.output_attentions, part.output_hidden_states = True, False, False
            return config

    @property
    def model_class(self) -> Any:
        """What reads its weights and builds it."""
        from transformers import AutoModelForCausalLM, AutoModelForSeq2SeqLM

        return AutoModelForSeq2SeqLM if encodes(self.config) else AutoModelForCausalLM

    @cached_property
    def tokenizer(self) -> Any:
        """The model's tokenizer; raises `ModelError` where there is none."""
        from transformers import AutoTokenizer

        with reading(self.spec.path, "no usable tokenizer"):
            return AutoTokenizer.from_pretrained(self.folder, trust_remote_code=False)

    @cached_property
    def shapes(self) -> dict[str, tuple[int, ...]]:
        """Tensor -> its shape, of the weights. Raises `ModelError` where they are not all there."""
        with reading(self.spec.path):
            return tensor_shapes(self.folder)

    @cached_property
    def skeleton(self) -> Any:
        """The model on the meta device: its modules and shapes, without a weight.

        Raises:
            ModelError: config.json makes no causal language model.
        """
        import torch

        with reading(self.spec.path, "config.json makes no causal language model"), torch.device("meta"):
            changed = copy.deepcopy(self.config)  # some models change the config that they are built from
            model = self.model_class.from_config(changed, trust_remote_code=False, **CHOSEN)
            model.tie_weights()
        return model

    def check_supported(self) -> None:
        """The static gate, and whether the weights, if they are here, are those of the model that is described; no
        weight is read."""
        if self.encodes:
            check_supported(self.spec.path, self.config, object)
            self._check_start()
        model = self.skeleton
        check_supported(self.spec.path, self.config, type(model))
        with reading(self.spec.path, "no usable generation_config.json"):
            check_generation_config(self.folder)
        if has_weights(self.folder) and not self.quantised:  # those hold packed numbers
            shapes = self.shapes
            with reading(self.spec.path):
                check_complete(shapes, model)

    def _check_start(self) -> None:
        if start_token(self._settings, self.config) is None:
            raise ModelError(
                f"{self.spec.path}: generation_config.json and config.json lack decoder_start_token_id, which an "
                "encoder-decoder's text begins with"
            )

    @property
    def _settings(self) -> Any:
        """Its generation settings, or what the config says of them."""
        from transformers import GenerationConfig

        with reading(self.spec.path, "no usable generation_config.json"):
            if (self.folder / "generation_config.json").exists():
                return GenerationConfig.from_pretrained(self.folder)
            return GenerationConfig.from_model_config(self.config)

    @cached_property
    def encodes(self) -> bool:
        """Whether it is an encoder-decoder."""
        return encodes(self.config)

    @cached_property
    def known_ids(self) -> int:
        """The ids below this one mean something; embeddings are often padded with more, which no tokenizer knows."""
        named = max(self.tokenizer.get_vocab().values(), default=-1) + 1
        return min(int(self.config.get_text_config().vocab_size), named)

    def vocab(self, text_vocab: int | None = None) -> int:
        """How many ids it may give: those that it knows, and of these only those that texts have."""
        return min(self.known_ids, text_vocab or self.known_ids)

    @cached_property
    def rotary_switch(self) -> int | None:
        """Positions after which rotary factors depend on a text's length (LongRoPE, dynamic scaling); None: never."""
        text, key = self.config.get_text_config(), "original_max_position_embeddings"
        scalings = [scaling for kind, scaling in rotary_scalings(text) if kind in LENGTH_DEPENDENT]
        with reading(self.spec.path, "no usable config.json"):
            lengths = [s.get(key) or getattr(text, key, None) or text.max_position_embeddings for s in scalings]
            return min(map(int, lengths), default=None)

    @cached_property
    def context_length(self) -> int | None:
        """Positions that the model was made for, or None if it does not say."""
        length = getattr(self.config.get_text_config(), "max_position_embeddings", None)
        return int(length) if length else None

    @cached_property
    def eos_ids(self) -> frozenset[int]:
        """The end-of-sequence tokens: of its generation settings, else of its config."""
        return eos_ids(self._settings, self.config)

    @cached_property
    def stored_dtype(self) -> str | None:
        """The type that the config names, as `float16`."""
        dtype = getattr(self.config.get_text_config(), "dtype", None)
        return None if dtype is None else str(dtype).removeprefix("torch.")

    @cached_property
    def quantised(self) -> bool:
        """Whether the weights are stored in packed numbers."""
        return getattr(self.config.get_text_config(), "quantization_config", None) is not None

    @cached_property
    def layers(self) -> int:
        """How many layers it has."""
        return int(self.config.get_text_config().num_hidden_layers)

    @cached_property
    def dated(self) -> bool:
        """Whether its chat template asks for the day's date."""
        from specdraft.models.prompt_reader import PromptReader

        return PromptReader(self.tokenizer, self.spec.path, "auto").dated

    def remembered(self) -> dict[str, Any]:
        """What was read out of the folder that needs `transformers`, to be kept."""
        return {name: getattr(self, name) for name in REMEMBERED} | {"eos_ids": sorted(self.eos_ids)}

    def remember(self, kept: Mapping[str, Any]) -> None:
        """Take over what was read out of an equal folder before."""
        vars(self).update(kept, eos_ids=frozenset(kept["eos_ids"]))

    @cached_property
    def texts_digest(self) -> str:
        """A digest of config, generation settings and tokenizer."""
        return str(self._texts().hexdigest())

    @cached_property
    def outline(self) -> str:
        """A digest of all that is looked at before weights are read: the texts, and the weight files' headers."""
        digest = self._texts()
        for path in sorted(filter(Path.is_file, self.folder.glob("*.safetensors"))):
            digest.update(f"{path.name}\0{path.stat().st_size}\0".encode() + header(path))
        self._add_beside(digest)
        return str(digest.hexdigest())

    def _add_beside(self, digest: Any) -> None:
        for path in self.beside:
            digest.update(path.read_bytes())

    def _texts(self) -> Any:
        digest = hashlib.sha256()
        texts = {path for pattern in TEXT_FILES for path in self.folder.glob(pattern)}
        for path in sorted(filter(Path.is_file, texts)):
            digest.update(path.name.encode() + b"\0" + path.read_bytes())
        return digest

    @cached_property
    def weights_hash(self) -> str:
        """A digest of weights, config, generation settings and tokenizer: all that decides what is decoded.

        Weights in the hub's cache are named by their digests already.
        """
        digest = self._texts()
        for path in sorted(filter(Path.is_file, self.folder.glob("*.safetensors"))):
            blob = path.resolve().name
            if path.is_symlink() and re.fullmatch(r"[0-9a-f]{64}", blob):
                digest.update(blob.encode())
            else:
                with path.open("rb") as handle:
                    digest.update(hashlib.file_digest(handle, "sha256").digest())
        self._add_beside(digest)
        return str(digest.hexdigest()[:16])

    @property
    def revision(self) -> str | None:
        """The hub commit, for a model from the hub."""
        return self.folder.name if re.fullmatch(r"[0-9a-f]{40}", self.folder.name) else self.spec.revision


class ModelInMemory(ModelFiles):
    """A `transformers` model that was handed over, as if it had been found on disk."""

    def __init__(self, spec: ModelSpec, model: Any, tokenizer: Any) -> None:
        super().__init__(spec, Path())
        vars(self).update(model=model, config=model.config, tokenizer=tokenizer, skeleton=model)

    @property
    def in_memory(self) -> Any:
        """See `ModelFiles.in_memory`."""
        return vars(self)["model"]

    @cached_property
    def eos_ids(self) -> frozenset[int]:
        """See `ModelFiles.eos_ids`."""
        return eos_ids(self.in_memory.generation_config, self.config)

    def check_supported(self) -> None:
        """See `ModelFiles.check_supported`."""
        check_supported(self.spec.path, self.config, type(self.in_memory))

    @cached_property
    def weights_hash(self) -> str:
        """A digest of the weights."""
        from safetensors.torch import save

        digest = hashlib.sha256()
        for name, weight in sorted(self.in_memory.state_dict().items()):
            digest.update(name.encode() + save({"": weight.detach().contiguous()}))
        return str(digest.hexdigest()[:16])


@contextmanager
def reading(name: str, problem: str = "") -> Iterator[None]:
    """Whatever goes wrong in reading a model folder, as one `ModelError`; `transformers` says nothing meanwhile.

    Args:
        name: the folder as the user named it.
        problem: what is said of it, before the reason.
    """
    with _transformers_silent(), warnings.catch_warnings():
        warnings.simplefilter("ignore")
        try:
            yield
        except Exception as error:  # a folder's files can raise anything
            said = str(error) if isinstance(error, UserError) else reason(error)
            raise ModelError(": ".join(filter(None, (name, problem, said)))) from error


@contextmanager
def _transformers_silent() -> Iterator[None]:
    """`transformers` says nothing, if it is there: what does without it does not import it."""
    if "transformers" not in sys.modules:
        yield
        return
    from transformers.utils import logging as transformers_logging

    verbosity = transformers_logging.get_verbosity()
    transformers_logging.set_verbosity(logging.CRITICAL)
    try:
        yield
    finally:
        transformers_logging.set_verbosity(verbosity)


def reason(error: BaseException) -> str:
    """What an error of a library says, in one line; its type too where its text is only a name or a number."""
    from huggingface_hub.errors import StrictDataclassError

    if isinstance(error, StrictDataclassError):
        return " ".join(str(error).split())
    text = first_line(error)
    return text if isinstance(error, SPEAKING) or text == type(error).__name__ else f"{type(error).__name__}: {text}"


def first_line(error: BaseException) -> str:
    """The first line of an error's text, or its type."""
    return (str(error).strip().splitlines() or [type(error).__name__])[0]


def eos_ids(settings: Any, config: Any) -> frozenset[int]:
    """The end-of-sequence tokens of generation settings, else of a model's config."""
    eos = settings.eos_token_id
    if eos is None:
        eos = config.get_text_config().eos_token_id
    return frozenset() if eos is None else frozenset([eos] if isinstance(eos, int) else eos)


def check_generation_config(folder: Path) -> None:
    """Raise what is wrong with a `generation_config.json`, without which texts would not end where they should."""
    from transformers import GenerationConfig

    if (folder / "generation_config.json").exists():
        eos = GenerationConfig.from_pretrained(folder).eos_token_id
        if not all(isinstance(token, int) for token in (eos if isinstance(eos, list) else [eos]) if token is not None):
            raise ModelError(f"eos_token_id={eos!r}; expected token ids")


def has_weights(folder: Path) -> bool:
    """Whether any weights lie in a model's folder, whole or not."""
    return any(folder.glob("*.safetensors*"))


def find_model(spec: ModelSpec, key: str, weights: bool = True) -> ModelFiles:
    """The folder of a model; from the hub it is downloaded (or found in the hub's cache).

    Args:
        spec: which model.
        key: the config key to name in errors, as `pair.target`.
        weights: False fetches the configuration and the tokenizer only.

    Raises:
        ModelError: there is no such folder, repository or revision; it is gated; it has no
            safetensors weights; the hub cannot be reached and holds no cached copy.
    """
    where, weights = f"{key}.path={spec.path}", weights and not spec.served
    if spec.path.startswith("zoo:"):
        _refuse_revision(spec, key, "a bundled model")
        return _files(spec, _zoo_folder(spec.path.removeprefix("zoo:"), where), key)
    folder = Path(spec.path).expanduser()
    if not folder.is_dir():
        if (
            folder.exists()
            or spec.path.startswith((".", "/", "~"))
            or not re.fullmatch(r"[\w.-]+(/[\w.-]+)?", spec.path)
        ):
            raise ModelError(f"{where}: {_not_a_folder(folder)}")
        folder = _from_hub(spec, where, weights)
        if weights and not has_weights(folder):
            raise ModelError(
                f"{where}: the hub's cache has no .safetensors weights of it: the repository has none (other formats "
                "are refused), or they were not fetched (`hf download` fetches them)"
            )
    else:
        _refuse_revision(spec, key, "a folder")
    if (folder / ADAPTER).exists():
        raise ModelError(
            f"{where}: the folder holds {ADAPTER}: an adapter, which is not applied here; save the merged model "
            "(peft's merge_and_unload) elsewhere, or take the adapter's files away"
        )
    if not (folder / "config.json").is_file():
        raise ModelError(f"{where}: the folder has no config.json, so it is not a saved model")
    if weights:
        with reading(where):
            weight_files(folder)
    return _files(spec, folder, key)


def _files(spec: ModelSpec, folder: Path, key: str) -> ModelFiles:
    if not spec.served:
        return ModelFiles(spec, folder)
    from specdraft.models.server.served_files import ServedFiles

    return ServedFiles(spec, folder, key=key)


def _refuse_revision(spec: ModelSpec, key: str, what: str) -> None:
    if spec.revision is not None:
        raise ModelError(
            f"{key}.revision={spec.revision} has no effect: {key}.path={spec.path} is {what}, and only repositories of "
            "the hub have revisions; leave it out"
        )


def _not_a_folder(path: Path) -> str:
    if not path.exists():
        return "no such folder"
    taken = "a folder with config.json, tokenizer and .safetensors weights, or a hub id"
    if path.suffix == ".gguf":
        return f"this is a GGUF file (llama.cpp's format), which is not read; expected {taken}"
    return f"this is a file; expected {taken}"


def zoo_folder() -> Path:
    """Where the bundled models are."""
    return Path(str(files("specdraft").joinpath("zoo")))


def _zoo_folder(name: str, where: str) -> Path:
    names = sorted(p.parent.name for p in zoo_folder().glob("*/config.json"))
    if name not in names:
        raise ModelError(f"{where}: no such bundled model{did_you_mean(name, names)}")
    return zoo_folder() / name


def _from_hub(spec: ModelSpec, where: str, weights: bool) -> Path:
    from huggingface_hub import snapshot_download
    from huggingface_hub.errors import (
        GatedRepoError,
        HFValidationError,
        LocalEntryNotFoundError,
        RepositoryNotFoundError,
        RevisionNotFoundError,
    )

    patterns = [*TEXT_FILES, "*.safetensors"] if weights else TEXT_FILES
    try:
        return Path(snapshot_download(spec.path, revision=spec.revision, allow_patterns=patterns))
    except GatedRepoError as error:
        raise ModelError(
            f"{where}: the repository is gated; accept its licence on the hub and log in with `hf auth login`"
        ) from error
    except RepositoryNotFoundError as error:
        raise ModelError(
            f"{where}: no such folder here, and no such repository on the hub (or it is private)"
        ) from error
    except RevisionNotFoundError as error:
        raise ModelError(f"{where}: the repository has no revision {spec.revision!r}") from error
    except HFValidationError as error:
        raise ModelError(f"{where}: neither a folder nor a hub id: {first_line(error)}") from error
    except (LocalEntryNotFoundError, OSError) as error:
        raise OutOfReachError(
            f"{where}: no such folder here, not in the hub's cache, and the hub cannot be reached"
        ) from error
