"""A predictor that is kept: a model with its calibration, and what it may be used for."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Sequence
from dataclasses import asdict, dataclass, fields
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from safetensors import SafetensorError, safe_open
from safetensors.numpy import save

from specdraft.drafters.pair import PairFiles
from specdraft.errors import ConfigError, ResultsError
from specdraft.prediction import calibration as calibrations
from specdraft.prediction import predictors
from specdraft.prediction.features import GROUPS, Features, Siblings, children, roots
from specdraft.prediction.tree_walks import along_path
from specdraft.results.files import write_atomically
from specdraft.sampling.distribution import Sampling

FORMAT = "specdraft predictor 1"


@dataclass(frozen=True)
class About:
    """What a predictor was fitted to.

    Attributes:
        pair, drafter: their names, for people.
        target_weights, draft_weights: digests (see `PairFiles.weights`).
        sampling: of the texts.
        scores_temperature: of the trees that it learnt from, at which `Features.tempered` is (1: raw scores).
        model, calibration, groups: kinds, and the feature groups that are read.
        prompts, rows: how many prompts, and reached draft nodes.
        extra: what the columns of the group `extra` are, if it is read, and `extra_columns` how many.
    """

    pair: str
    drafter: str
    target_weights: str
    draft_weights: str
    sampling: Sampling
    scores_temperature: float
    model: str
    calibration: str
    groups: tuple[str, ...]
    prompts: int
    rows: int
    extra: str = ""
    extra_columns: int = 0


class ScoredChildren(NamedTuple):
    """The children of nodes that are being drafted: `[m, K]` features, and the logarithms of P(accepted | parent)."""

    features: Features
    log_conditional: np.ndarray


@dataclass(frozen=True, eq=False)
class Predictor:
    """P(a draft node is accepted), from what is known before the target runs."""

    model: predictors.Conditional
    calibration: calibrations.Calibration
    about: About

    @property
    def digest(self) -> str:
        """16 hex digits of all that it says: two files of one predictor need not be equal byte by byte."""
        said = hashlib.sha256(json.dumps(asdict(self.about), sort_keys=True).encode())
        for arrays in self._arrays:
            for name, array in sorted(arrays.items()):
                said.update(f"{name}{array.dtype}{array.shape}".encode() + np.ascontiguousarray(array).tobytes())
        return said.hexdigest()[:16]

    @property
    def held_bytes(self) -> int:
        """The memory of its numbers."""
        return sum(array.nbytes for arrays in self._arrays for array in arrays.values())

    @property
    def _arrays(self) -> tuple[dict[str, np.ndarray], dict[str, np.ndarray]]:
        return self.model.arrays(), self.calibration.arrays()

    def conditional(self, features: Features) -> np.ndarray:
        """`[...]` P(accepted | the parent was), of the shape that the features have."""
        return calibrations.sigmoid(self._logits(features))

    def log_conditional(self, features: Features) -> np.ndarray:
        """The logarithm of `conditional`: never above 0."""
        logarithm: np.ndarray = -np.logaddexp(0, -self._logits(features))
        return logarithm

    def survival(self, features: Features, parent: np.ndarray) -> np.ndarray:
        """`[T, N]` P(accepted) of the nodes of T trees: the product of the conditionals from the root down.

        Args:
            features: `[T, N]`, see `rows.tree_features`.
            parent: `[T, N]` as in `Expansion`; 0 is returned where there is no node.
        """
        return np.where(parent >= 0, along_path(self.conditional(features), parent, np.multiply), 0.0)

    def children(self, above: Features, siblings: Siblings) -> ScoredChildren:
        """The children of m nodes of one level (see `features.children`): what a growing tree ranks them by."""
        features = children(above, siblings)
        return ScoredChildren(features, self.log_conditional(features))

    def _logits(self, features: Features) -> np.ndarray:
        return self.calibration(self.model.logits(features), features.depth)

    def refuse_others(self, path: Path, files: PairFiles, sampling: Sampling) -> None:
        """Raise `ConfigError` unless it was fitted to this pair and this sampling; `path` is for the message."""
        about = self.about
        if files.weights != (about.target_weights, about.draft_weights):
            raise ConfigError(
                f"{path}: this predictor was fitted to pair {about.pair} with drafter={about.drafter}; the weights of "
                f"pair {files.label} are others: specdraft fit predictor pair={files.spec.name}{_drafter(files)} makes "
                "one for it"
            )
        if sampling != about.sampling:
            raise ConfigError(
                f"{path}: this predictor was fitted under {_said(about.sampling)}; expected {_said(sampling)}, "
                "as a target that samples otherwise accepts other tokens"
            )


def _drafter(files: PairFiles) -> str:
    """What names a drafter that is not the pair's draft model."""
    drafter = files.drafter
    path = f" drafter.path={drafter.path}" if drafter.path else ""
    return "" if drafter.kind == "model" else f" drafter={drafter.kind}{path}"


def _said(sampling: Sampling) -> str:
    return ", ".join(f"sampling.{name}={value:g}" for name, value in asdict(sampling).items())


def save_predictor(predictor: Predictor, path: Path) -> None:
    """Write it as safetensors. Raises `ResultsError`."""
    tensors = {f"model.{name}": array for name, array in predictor.model.arrays().items()}
    tensors |= {f"calibration.{name}": array for name, array in predictor.calibration.arrays().items()}
    about = {"format": FORMAT, "about": json.dumps(asdict(predictor.about))}
    whole = {name: np.ascontiguousarray(array).reshape(array.shape) for name, array in tensors.items()}
    write_atomically(path, save(whole, about))


def load_predictor(path: Path, files: PairFiles | None = None, sampling: Sampling | None = None) -> Predictor:
    """A predictor from its file.

    Args:
        path: what `specdraft fit predictor` wrote.
        files, sampling: what it is wanted for; left out: whatever it was fitted to.

    Raises:
        ConfigError: it was fitted to another pair or sampling, or reads features that are not known here.
        ResultsError: it cannot be read, or is something else.
    """
    if path.suffix in (".pt", ".pth", ".bin", ".pkl"):
        raise ResultsError(
            f"{path}: a {path.suffix} file is pickled and can run code; expected the .safetensors file that "
            "specdraft fit predictor writes"
        )
    try:
        with safe_open(path, framework="numpy") as file:
            said, tensors = file.metadata() or {}, {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118
    except (OSError, SafetensorError) as error:
        raise ResultsError(f"{path}: cannot be read as a predictor: {error}") from error
    if said.get("format") != FORMAT:
        raise ResultsError(f"{path}: this is no predictor; expected the file that specdraft fit predictor writes")
    try:
        predictor = _of_tensors(_about(json.loads(said["about"])), tensors)
    except (ValueError, KeyError, TypeError) as error:
        raise ResultsError(f"{path}: this predictor is damaged ({error!r}); fit it again") from error
    if unknown := set(predictor.about.groups) - set(GROUPS):
        raise ConfigError(f"{path}: reads feature groups that are not known here: {', '.join(sorted(unknown))}")
    if files is not None:
        predictor.refuse_others(path, files, predictor.about.sampling if sampling is None else sampling)
    return predictor


def _about(said: dict[str, Any]) -> About:
    about = {field.name: said[field.name] for field in fields(About)}
    return About(**about | {"sampling": Sampling(**said["sampling"]), "groups": tuple(said["groups"])})


def _of_tensors(about: About, tensors: dict[str, np.ndarray]) -> Predictor:
    def part(name: str) -> dict[str, np.ndarray]:
        return {key.removeprefix(f"{name}."): array for key, array in tensors.items() if key.startswith(f"{name}.")}

    if not all(np.isfinite(array).all() for array in tensors.values()):
        raise ValueError("not all of its numbers are finite")
    model = predictors.of_arrays(about.model, about.groups, part("model"))
    predictor = Predictor(model, calibrations.of_arrays(about.calibration, part("calibration")), about)
    _try(predictor)
    return predictor


def _try(predictor: Predictor) -> None:
    """Raise `ValueError` where arrays do not fit each other."""
    two, extras = np.log([[0.5, 0.25]]), predictor.about.extra_columns
    siblings = Siblings(two, two, np.ones(1), two[:, 1], extra=np.zeros((1, 2, extras)))
    said = predictor.children(roots(1, extras), siblings).log_conditional
    if said.shape != two.shape:
        raise ValueError("its arrays do not fit")


def refuse_features(predictor: Predictor, path: Path, groups: Sequence[str], extra: str = "") -> None:
    """Raise `ConfigError` where a predictor reads what is not worked out here.

    Args:
        predictor, path: and where it came from.
        groups: that are worked out; `extra`: what the further columns are.
    """
    if lacking := [name for name in predictor.about.groups if name not in groups]:
        known = ", ".join(groups)
        raise ConfigError(f"{path}: this predictor reads the features {', '.join(lacking)}; expected {known}")
    if "extra" in predictor.about.groups and predictor.about.extra != extra:
        raise ConfigError(
            f"{path}: this predictor reads further columns of {predictor.about.extra or 'nothing'}; expected those of "
            f"{extra or 'nothing'}"
        )
