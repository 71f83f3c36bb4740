"""Find a model's files and say clearly what is missing, before any weight is read."""

from __future__ import annotations

import copy
import hashlib
import re
from dataclasses import dataclass
from functools import cached_property
from importlib.resources import files
from pathlib import Path
from typing import Any

from specdraft.errors import ModelError, did_you_mean
from specdraft.models.gate import check_supported
from specdraft.models.spec import ModelSpec

LENGTH_DEPENDENT = {"longrope", "dynamic"}  # rotary scalings that change with the length of the text
TEXT_FILES = ["*.json", "*.txt", "*.model", "*.jinja"]


@dataclass(frozen=True, eq=False)
class ModelFiles:
    """A model on disk: its folder, and what can be known without loading weights."""

    spec: ModelSpec
    folder: Path

    @property
    def in_memory(self) -> Any:
        """The model itself, where it was handed over; None of one on disk."""
        return None

    def __getstate__(self) -> dict[str, Any]:
        """What is pickled: not what was read from the folder into objects, which is large, and soon read again."""
        return {name: value for name, value in vars(self).items() if name not in ("config", "tokenizer")}

    @cached_property
    def config(self) -> Any:
        """The `transformers` config.

        Raises:
            ModelError: there is none, or this `transformers` does not know the architecture.
        """
        from huggingface_hub.errors import StrictDataclassError
        from transformers import AutoConfig

        try:
            return AutoConfig.from_pretrained(self.folder, trust_remote_code=False)
        except StrictDataclassError as error:
            raise ModelError(f"{self.spec.path}: no usable config.json: {' '.join(str(error).split())}") from error
        except (OSError, ValueError, KeyError) as error:
            raise ModelError(f"{self.spec.path}: no usable config.json: {first_line(error)}") from error

    @cached_property
    def tokenizer(self) -> Any:
        """The model's tokenizer; raises `ModelError` where there is none."""
        from transformers import AutoTokenizer

        try:
            return AutoTokenizer.from_pretrained(self.folder, trust_remote_code=False)
        except (OSError, ValueError, KeyError, TypeError) as error:
            raise ModelError(f"{self.spec.path}: no usable tokenizer: {first_line(error)}") from error

    def check_supported(self) -> None:
        """The static gate; the class is built on the meta device, so no weight is read."""
        import torch
        from transformers import AutoModelForCausalLM

        try:
            with torch.device("meta"):
                config = copy.deepcopy(self.config)  # some models change the config that they are built from
                model_class = type(AutoModelForCausalLM.from_config(config, trust_remote_code=False))
        except ValueError as error:
            if getattr(self.config, "is_encoder_decoder", False):
                check_supported(self.spec.path, self.config, object)
            raise ModelError(f"{self.spec.path}: not a causal language model: {first_line(error)}") from error
        check_supported(self.spec.path, self.config, model_class)

    @cached_property
    def known_ids(self) -> int:
        """The ids below this one mean something; embeddings are often padded with more, which no tokenizer knows."""
        named = max(self.tokenizer.get_vocab().values(), default=-1) + 1
        return min(int(self.config.get_text_config().vocab_size), named)

    @cached_property
    def rotary_switch(self) -> int | None:
        """Positions after which rotary factors depend on a text's length (LongRoPE, dynamic scaling); None: never."""
        text = self.config.get_text_config()
        given = getattr(text, "rope_parameters", None) or getattr(text, "rope_scaling", None) or {}
        scalings = [given, *(value for value in given.values() if isinstance(value, dict))]
        made_for = getattr(text, "original_max_position_embeddings", None) or text.max_position_embeddings
        return min(
            (
                int(scaling.get("original_max_position_embeddings") or made_for)
                for scaling in scalings
                if scaling.get("rope_type", scaling.get("type")) in LENGTH_DEPENDENT
            ),
            default=None,
        )

    @cached_property
    def context_length(self) -> int | None:
        """Positions that the model was made for, or None if it does not say."""
        length = getattr(self.config.get_text_config(), "max_position_embeddings", None)
        return int(length) if length else None

    @cached_property
    def weights_hash(self) -> str:
        """A digest of weights, config, generation settings and tokenizer: all that decides what is decoded.

        Weights in the hub's cache are named by their digests already.
        """
        digest = hashlib.sha256()
        for path in sorted({path for pattern in TEXT_FILES for path in self.folder.glob(pattern)}):
            digest.update(path.name.encode() + b"\0" + path.read_bytes())
        for path in sorted(self.folder.glob("*.safetensors")):
            blob = path.resolve().name
            if path.is_symlink() and re.fullmatch(r"[0-9a-f]{64}", blob):
                digest.update(blob.encode())
            else:
                with path.open("rb") as handle:
                    digest.update(hashlib.file_digest(handle, "sha256").digest())
        return digest.hexdigest()[:16]

    @property
    def revision(self) -> str | None:
        """The hub commit, for a model from the hub."""
        return self.folder.name if re.fullmatch(r"[0-9a-f]{40}", self.folder.name) else self.spec.revision


class ModelInMemory(ModelFiles):
    """A `transformers` model that was handed over, as if it had been found on disk."""

    def __init__(self, spec: ModelSpec, model: Any, tokenizer: Any) -> None:
        super().__init__(spec, Path())
        vars(self).update(model=model, config=model.config, tokenizer=tokenizer)

    @property
    def in_memory(self) -> Any:
        """See `ModelFiles.in_memory`."""
        return vars(self)["model"]

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
        return digest.hexdigest()[:16]


def first_line(error: BaseException) -> str:
    """The first line of an error's text, or its type."""
    return (str(error).strip().splitlines() or [type(error).__name__])[0]


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
    where = f"{key}.path={spec.path}"
    if spec.path.startswith("zoo:"):
        _refuse_revision(spec, key, "a bundled model")
        return ModelFiles(spec, _zoo_folder(spec.path.removeprefix("zoo:"), where))
    folder = Path(spec.path).expanduser()
    if not folder.is_dir():
        if (
            folder.exists()
            or spec.path.startswith((".", "/", "~"))
            or not re.fullmatch(r"[\w.-]+(/[\w.-]+)?", spec.path)
        ):
            raise ModelError(f"{where}: no such folder")
        folder = _from_hub(spec, where, weights)
    else:
        _refuse_revision(spec, key, "a folder")
    if not (folder / "config.json").is_file():
        raise ModelError(f"{where}: the folder has no config.json, so it is not a saved model")
    if weights and not any(folder.glob("*.safetensors")):
        raise ModelError(
            f"{where}: there are no .safetensors weights (other formats can run code when loaded and are refused)"
        )
    return ModelFiles(spec, folder)


def _refuse_revision(spec: ModelSpec, key: str, what: str) -> None:
    if spec.revision is not None:
        raise ModelError(
            f"{key}.revision={spec.revision} has no effect: {key}.path={spec.path} is {what}, and only repositories of "
            "the hub have revisions; leave it out"
        )


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
        raise ModelError(
            f"{where}: no such folder here, not in the hub's cache, and the hub cannot be reached"
        ) from error
