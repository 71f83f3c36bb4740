"""A predictor that is written and read."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
from safetensors import safe_open
from safetensors.numpy import save_file

from specdraft.errors import ConfigError, ResultsError
from specdraft.prediction.calibration import Platt
from specdraft.prediction.features import Features
from specdraft.prediction.mlp import Mlp
from specdraft.prediction.predictor import About, Predictor, load_predictor, refuse_features, save_predictor
from specdraft.sampling.distribution import Sampling

WEIGHTS = ("f" * 64, "a" * 64)


def made(groups: tuple[str, ...] = ("raw", "loop")) -> Predictor:
    rng = np.random.default_rng(0)
    model = Mlp(groups, *(rng.normal(size=s).astype(np.float32) for s in ((3, 4), (4,), (4,))), 0.25)
    about = About("zoo", "model", *WEIGHTS, Sampling(), 1.0, "mlp", "platt", groups, 80, 1234)
    return Predictor(model, Platt(0.9, -0.1), about)


def nodes(rows: int = 2, width: int = 4) -> Features:
    rng = np.random.default_rng(1)
    values = {name: rng.random((rows, width)) * -2 for name in Features._fields}
    return Features(**values | {"depth": np.full((rows, width), 2), "extra": np.zeros((rows, width, 0))})


def test_what_was_written_says_the_same(tmp_path: Path) -> None:
    predictor, path = made(), tmp_path / "one.safetensors"
    save_predictor(predictor, path)
    again = load_predictor(path)
    assert again.about == predictor.about
    assert np.array_equal(again.conditional(nodes()), predictor.conditional(nodes()))
    assert again.log_conditional(nodes()) == pytest.approx(np.log(predictor.conditional(nodes())))


def test_survival_is_the_product_down_the_path() -> None:
    predictor, parent = made(), np.array([[0, 1, 0, 2], [0, 1, 1, -1]])
    said = predictor.conditional(nodes())
    wanted = [
        [said[0, 0], said[0, 0] * said[0, 1], said[0, 2], said[0, 0] * said[0, 1] * said[0, 3]],
        [said[1, 0], said[1, 0] * said[1, 1], said[1, 0] * said[1, 2], 0],
    ]
    assert predictor.survival(nodes(), parent) == pytest.approx(np.array(wanted))


def files(weights: tuple[str, str] = WEIGHTS, kind: str = "model", path: str | None = None) -> Any:
    drafter = SimpleNamespace(kind=kind, path=path)
    return SimpleNamespace(weights=weights, label="mine", spec=SimpleNamespace(name="mine"), drafter=drafter)


def refused(path: Path, *wanted: Any) -> str:
    with pytest.raises((ConfigError, ResultsError)) as error:
        load_predictor(path, *wanted)
    assert "\n" not in str(error.value)
    return str(error.value)


def test_another_pair_or_sampling_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "one.safetensors"
    save_predictor(made(), path)
    assert load_predictor(path, files(), Sampling()).about.pair == "zoo"
    other = ("f" * 64, "b" * 64)
    assert refused(path, files(other), Sampling()) == (
        f"{path}: this predictor was fitted to pair zoo with drafter=model; the weights of pair mine are others: "
        "specdraft fit predictor pair=mine makes one for it"
    )
    aligned = refused(path, files(other, "aligned", "map.safetensors"), Sampling())
    assert "fit predictor pair=mine drafter=aligned drafter.path=map.safetensors makes one" in aligned
    assert refused(path, files(), Sampling(temperature=1.0)) == (
        f"{path}: this predictor was fitted under sampling.temperature=0, sampling.top_k=0, sampling.top_p=1; expected "
        "sampling.temperature=1, sampling.top_k=0, sampling.top_p=1, as a target that samples otherwise accepts other "
        "tokens"
    )


def test_features_that_are_not_there_are_refused(tmp_path: Path) -> None:
    path = tmp_path / "one.safetensors"
    refuse_features(made(), path, ("raw", "loop"))
    with pytest.raises(ConfigError, match=r"reads the features loop; expected raw, place$"):
        refuse_features(made(), path, ("raw", "place"))
    mapped = replace(made(), about=replace(made().about, groups=("raw", "extra"), extra="alignment ab12"))
    with pytest.raises(ConfigError, match=r"further columns of alignment ab12; expected those of nothing$"):
        refuse_features(mapped, path, ("raw", "extra"))
    save_predictor(made(("raw", "loop")), path)
    unknown = rewritten(path, tmp_path, lambda about: about | {"groups": ["raw", "mood"]})
    assert "damaged" in refused(unknown)


def rewritten(path: Path, folder: Path, change: Callable[[dict[str, Any]], dict[str, Any]]) -> Path:
    with safe_open(path, framework="numpy") as file:
        said, tensors = file.metadata(), {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118
    said["about"] = json.dumps(change(json.loads(said["about"])))
    save_file(tensors, folder / "other.safetensors", said)
    return folder / "other.safetensors"


def test_what_is_no_predictor_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "one.safetensors"
    pickled = tmp_path / "one.pt"
    assert refused(pickled).startswith(f"{pickled}: a .pt file is pickled and can run code; expected the .safetensors")
    assert "cannot be read as a predictor" in refused(path)
    save_predictor(made(), path)
    content = path.read_bytes()
    for damaged in (content[:100], content[:-8], b"", b"x" * 200):
        path.write_bytes(damaged)
        assert "cannot be read as a predictor" in refused(path)
    save_file({"weight": np.zeros(3)}, path)
    assert refused(path) == f"{path}: this is no predictor; expected the file that specdraft fit predictor writes"
    save_predictor(made(), path)
    for change in (lambda about: about | {"groups": ["raw"]}, lambda about: about | {"model": "oracle"}):
        assert "this predictor is damaged" in refused(rewritten(path, tmp_path, change))
    weights = replace(made().model, out_bias=float("nan"))
    save_predictor(replace(made(), model=weights), path)
    assert "this predictor is damaged" in refused(path)
