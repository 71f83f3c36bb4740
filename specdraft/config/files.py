"""The folders of YAML files, and what Hydra composes of them."""

from __future__ import annotations

import re
import shutil
import tempfile
from collections.abc import Mapping
from contextlib import ExitStack, suppress
from copy import deepcopy
from dataclasses import dataclass, field
from functools import cached_property, lru_cache
from pathlib import Path

from hydra import compose, initialize_config_dir
from hydra.errors import HydraException
from omegaconf import DictConfig, OmegaConf
from omegaconf.errors import OmegaConfBaseException
from yaml import YAMLError

from specdraft.config.overrides import refuse_resolvers
from specdraft.config.typed import Schema
from specdraft.config.yaml_bounds import check_yaml
from specdraft.errors import ConfigError, did_you_mean

SWEEP = "sweep.yaml"
OF_ONE_COMMAND = {"bench"}  # groups that no study is composed of: see `ConfigFiles.alone`
GLOBAL = b"# @package _global_\n"  # the first line of an experiment
COMMENT = re.compile(r"(^|\s)#.*$", re.MULTILINE)


def bundled_config_dir() -> Path:
    """The package's configs: inside an installed package, beside it in a source tree."""
    package = Path(__file__).parents[1]
    inside = package / "configs"
    return inside if inside.is_dir() else package.parent / "configs"


@dataclass(frozen=True)
class Held:
    """What a folder holds, wherever that is."""

    texts: frozenset[tuple[Path, bytes]]
    folder: Path = field(compare=False)


@lru_cache(maxsize=32)
def _composed(held: Held, choices: tuple[str, ...]) -> DictConfig:
    """`sweep.yaml` of a folder, as Hydra composes it: a tenth of a second, so once for the same files. Copy it."""
    with initialize_config_dir(version_base="1.3", config_dir=str(held.folder.resolve())):
        composed: DictConfig = compose("sweep", overrides=list(choices))
        return composed


@lru_cache(maxsize=32)
def _global_keys(text: bytes) -> frozenset[str] | None:
    """The keys of an experiment's file; None where they need not be all that it says."""
    body = text.removeprefix(GLOBAL)
    if b"@package" in body or b"defaults" in body:
        return None
    return frozenset(map(str, OmegaConf.create(body.decode())))


class ConfigFiles:
    """The config folders as Hydra sees them: the user's files laid over the bundled ones."""

    def __init__(self, config_dir: Path | None, schemas: Mapping[str, Schema]) -> None:
        self._user, bundled = config_dir, bundled_config_dir()
        kinds = {group: schema for group, schema in schemas.items() if isinstance(schema, Mapping)}
        choices = [(group, kind) for group, registered in kinds.items() for kind in registered]
        self._plugins = [choice for choice in choices if not bundled.joinpath(*choice).with_suffix(".yaml").exists()]

    def __enter__(self) -> ConfigFiles:
        with ExitStack() as stack:
            self.folder = self._overlay(stack) if self._user or self._plugins else bundled_config_dir()
            self.groups = {path.name for path in self.folder.iterdir() if path.is_dir()} | {"experiment"}
            self._stack = stack.pop_all()
        return self

    def _overlay(self, stack: ExitStack) -> Path:
        """A folder of the bundled files, the user's, and one for each plugin, as long as `stack` is open."""
        user = self._user
        if user is not None and not user.is_dir():
            raise ConfigError(f"--config-dir {user}: no such folder")
        overlay = Path(stack.enter_context(tempfile.TemporaryDirectory()))
        for group, kind in self._plugins:
            overlay.joinpath(group).mkdir(exist_ok=True)
            overlay.joinpath(group, f"{kind}.yaml").write_text(f"kind: {kind}\n", encoding="utf-8")
        for folder in filter(None, (bundled_config_dir(), user)):
            for path in filter(Path.exists, folder.rglob("*.yaml")):
                if path.is_dir():
                    raise ConfigError(f"{path}: a folder; expected a YAML file")
                if folder is user:
                    check_yaml(path, str(path))
                copy = overlay / path.relative_to(folder)
                copy.parent.mkdir(parents=True, exist_ok=True)
                shutil.copyfile(path, copy)
                text = COMMENT.sub("", copy.read_text(encoding="utf-8", errors="replace"))
                refuse_resolvers(text, str(path.relative_to(folder)))  # also in a defaults list
        return overlay

    def __exit__(self, *exception: object) -> None:
        self._stack.close()

    def choices(self, group: str) -> list[str]:
        """The files of a group."""
        folder = self.folder / group
        return sorted(str(path.relative_to(folder).with_suffix("")) for path in folder.rglob("*.yaml"))

    def choice(self, group: str, choice: str, chosen: list[str]) -> DictConfig:
        """A group's part of `sweep.yaml` with a choice of it, among what else is `chosen`. Raises as `compose`.

        Where no other file has a say in it, it is what the choice's own file says: composing takes Hydra a while.
        """
        path = self.folder / group / f"{choice}.yaml"
        if path.is_file() and self._plain and all(self._silent_on(group, text) for text in chosen):
            with suppress(OSError, YAMLError, OmegaConfBaseException):  # `compose` says what is wrong
                if isinstance(content := OmegaConf.load(path), DictConfig):
                    refuse_resolvers(OmegaConf.to_container(content), str(path.relative_to(self.folder)))
                    return content
        composed: DictConfig = self.compose([*chosen, f"{group}={choice}"])[group]
        return composed

    def alone(self, group: str, choice: str) -> DictConfig:
        """What a file says of a group that belongs to one command: nothing is composed. Raises `ConfigError`."""
        if choice not in (known := self.choices(group)):
            raise ConfigError(f"{group}={choice}: there is no such {group}{did_you_mean(choice, known)}")
        try:
            content = OmegaConf.load(self.folder / group / f"{choice}.yaml")
        except (OSError, YAMLError, OmegaConfBaseException) as error:
            raise ConfigError(f"{group}={choice}: not YAML: {' '.join(str(error).split())}") from error
        if not isinstance(content, DictConfig):
            raise ConfigError(f"{group}={choice}: expected keys and values")
        refuse_resolvers(OmegaConf.to_container(content), f"{group}/{choice}.yaml")
        return content

    @cached_property
    def _plain(self) -> bool:
        """Whether `sweep.yaml` is the bundled one, and no file of a group says anything of another group."""
        texts = dict(self._texts)
        if texts.pop(Path(SWEEP)) != (bundled_config_dir() / SWEEP).read_bytes():
            return False
        groups = (text for path, text in texts.items() if path.parts[0] not in ("experiment", *OF_ONE_COMMAND))
        return not any(word in text for text in groups for word in (b"defaults", b"@package"))

    def _silent_on(self, group: str, chosen: str) -> bool:
        """Whether an experiment, if that is what is chosen, says nothing of a group."""
        option, _, name = chosen.partition("=")
        if option != "experiment":
            return True
        keys = _global_keys(dict(self._texts).get(Path(option, f"{name}.yaml"), b""))
        return keys is not None and group not in keys

    @cached_property
    def _texts(self) -> frozenset[tuple[Path, bytes]]:
        files = (path for path in self.folder.rglob("*.yaml") if path.is_file())
        return frozenset((path.relative_to(self.folder), path.read_bytes()) for path in files)

    def compose(self, choices: list[str]) -> DictConfig:
        """`sweep.yaml` with these `group=choice` overrides."""
        for text in choices:
            group, _, choice = text.partition("=")
            if choice not in (known := self.choices(group)):
                raise ConfigError(f"{group}={choice}: there is no such {group}{did_you_mean(choice, known)}")
        try:
            composed = deepcopy(_composed(Held(self._texts, self.folder), tuple(choices)))
            refuse_resolvers(OmegaConf.to_container(composed), ", ".join(choices) or "sweep.yaml")
            return composed
        except (HydraException, OmegaConfBaseException) as error:
            raise ConfigError(str(error).strip().splitlines()[0]) from error
        except RecursionError as error:
            named = " ".join(["sweep.yaml", *choices])
            raise ConfigError(f"{named}: a config file includes itself in its defaults") from error
        except OSError as error:  # as Hydra calls a file that holds no keys
            raise ConfigError(f"{', '.join(choices)}: {error}; expected keys and values") from error
        except YAMLError as error:
            where = getattr(error, "problem_mark", None)
            place = (
                f"{Path(where.name).relative_to(self.folder)}, line {where.line + 1}" if where else ", ".join(choices)
            )
            raise ConfigError(f"{place}: not YAML: {getattr(error, 'problem', None) or error}") from error
