"""Model folders that are damaged, hostile or only odd: what is known of them before a weight is read."""

from __future__ import annotations

import json
import logging
import re
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import huggingface_hub
import pytest
import torch
from safetensors.torch import load_file, save_file
from support.tiny_models import GROUPED, PairFolders, random_model, save_model
from transformers import AutoConfig, AutoModelForCausalLM
from transformers.utils import logging as transformers_logging

from specdraft.errors import ConfigError, ModelError
from specdraft.models import placement
from specdraft.models.files import ModelFiles, find_model, reading
from specdraft.models.loading import load_model
from specdraft.models.placement import check_loadable, resolve_device
from specdraft.models.spec import ModelSpec


@pytest.fixture
def folder(tiny_pair_folders: PairFolders, tmp_path: Path) -> Path:
    """A model's folder to write into."""
    return Path(shutil.copytree(tiny_pair_folders.draft, tmp_path / "odd"))


def found(folder: Path, **settings: Any) -> ModelFiles:
    return find_model(ModelSpec(str(folder), **settings), "pair.draft")


def planned(folder: Path) -> ModelFiles:
    """All that planning does with a model."""
    files = found(folder)
    files.check_supported()
    assert files.tokenizer
    check_loadable(files)
    assert files.weights_hash
    return files


def refusal(folder: Path) -> str:
    with pytest.raises(ModelError) as caught:
        planned(folder)
    line = str(caught.value)
    assert line.startswith((f"{folder}", f"pair.draft.path={folder}"))
    assert "\n" not in line
    assert line.count(str(folder)) <= 2
    return line


def set_config(folder: Path, **changes: Any) -> None:
    path = folder / "config.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | changes))


NESTED = '{"a":' * 100_000 + "1" + "}" * 100_000


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"rope_scaling": {"rope_type": "banana", "factor": 2}}, "KeyError: 'banana'"),
        ({"rope_scaling": "banana"}, "rope_parameters"),
        ({"hidden_act": "banana"}, "KeyError: 'banana'"),
        ({"dtype": "float23"}, "'float23'"),
        ({"dtype": 5}, "'int' object"),
        ({"num_attention_heads": 0}, "ZeroDivisionError"),
        ({"num_key_value_heads": 0}, "ZeroDivisionError"),
        ({"num_hidden_layers": 0}, "it has 0 layers"),
        ({"num_hidden_layers": -3}, "it has -3 layers"),
        ({"vocab_size": -5}, "negative dimension"),
        ({"vocab_size": 0}, ".weight has 258 x 32 numbers, and 0 by config.json"),
        ({"hidden_size": 10**12}, ".weight has 258 x 32 numbers"),
        ({"pad_token_id": 10**6}, "Padding_idx must be within num_embeddings"),
        ({"model_type": ["llama"]}, "no usable config.json: TypeError: unhashable"),
        ({"sliding_window": "x"}, "its sliding window is 'x'; expected a number of tokens"),
        ({"quantization_config": "x"}, "no usable config.json: AttributeError"),
        ({"quantization_config": {"quant_method": "gptq", "bits": 4}}, "what reads them is not here: ImportError: "),
        ({"num_hidden_layers": 10_000_000}, "num_hidden_layers=10000000 is out of range; expected at most 2000"),
        ({"text_config": {"num_local_experts": 10_000_000}}, "num_local_experts=10000000 is out of range"),
        ({"transformers_weights": "../model.safetensors"}, "transformers_weights is refused"),
        ({"fusion_config": {"a": True}}, "fusion_config is refused"),
    ],
)
def test_a_config_that_cannot_be_meant(folder: Path, changes: dict[str, Any], words: str) -> None:
    set_config(folder, **changes)
    assert words in refusal(folder)


@pytest.mark.parametrize(
    ("file", "content", "words"),
    [
        ("config.json", NESTED, "no usable config.json: RecursionError"),
        ("config.json", "[]", "no usable config.json: "),
        ("config.json", "{", "no usable config.json: not a valid JSON file"),
        ("tokenizer.json", "{}", "no usable tokenizer: KeyError"),
        ("tokenizer_config.json", "[]", "no usable tokenizer: AttributeError"),
        ("generation_config.json", "{", "no usable generation_config.json: "),
        ("generation_config.json", '{"eos_token_id": [1, "x"]}', "eos_token_id=[1, 'x']; expected token ids"),
    ],
)
def test_a_file_that_cannot_be_read(folder: Path, file: str, content: str, words: str) -> None:
    (folder / file).write_text(content)
    assert words in refusal(folder)


CASES: dict[str, tuple[Callable[[Path], object], str]] = {
    "cut off": (
        lambda weights: weights.write_bytes(weights.read_bytes()[:-100]),
        "the weights cannot be loaded: model.safetensors is cut off or damaged",
    ),
    "a few bytes": (lambda weights: weights.write_bytes(b"abc"), "model.safetensors is cut off or damaged"),
    "another name": (
        lambda weights: weights.rename(weights.with_name("other.safetensors")),
        "there is no model.safetensors and no model.safetensors.index.json, only other.safetensors",
    ),
    "nothing": (lambda weights: weights.unlink(), "there are no weights; expected model.safetensors"),
    "a folder": (
        lambda weights: (weights.unlink(), weights.mkdir()),
        "model.safetensors is a folder; expected a file",
    ),
}


@pytest.mark.parametrize("case", CASES)
def test_weights_that_are_not_whole(folder: Path, case: str) -> None:
    damage, words = CASES[case]
    damage(folder / "model.safetensors")
    assert words in refusal(folder)


@pytest.mark.parametrize("kept", ["beside", "in the folder", "below", "missing", "as it should be"])
def test_an_index_names_files_of_its_own_folder(folder: Path, kept: str) -> None:
    shard = "model-00001-of-00001.safetensors"
    (folder / "below").mkdir()
    (folder / "model.safetensors").rename(folder.parent / "outside.safetensors")
    for copy in (folder / shard, folder / "below" / shard):
        shutil.copyfile(folder.parent / "outside.safetensors", copy)
    named = {
        "beside": "../outside.safetensors",
        "in the folder": str(folder / shard),
        "below": f"below/{shard}",
        "missing": "gone.safetensors",
        "as it should be": shard,
    }[kept]
    tensors = load_file(folder / shard)
    index = {"metadata": {"total_size": 1}, "weight_map": dict.fromkeys(tensors, named)}
    (folder / "model.safetensors.index.json").write_text(json.dumps(index))
    if kept == "as it should be":
        assert load_model(planned(folder)).prefill([0, 5]).logits.shape == (258,)
    elif kept == "missing":
        assert "gone.safetensors is missing (model.safetensors.index.json names it)" in refusal(folder)
    else:
        assert f"names {named!r}; expected the names of .safetensors files in the model's own folder" in refusal(folder)


def test_weights_may_be_links_as_in_the_hubs_cache(folder: Path) -> None:
    (folder / "model.safetensors").rename(folder.parent / "blob")
    (folder / "model.safetensors").symlink_to(folder.parent / "blob")
    first = planned(folder).weights_hash
    tensors = load_file(folder / "model.safetensors")
    save_file({name: weight * 2 for name, weight in tensors.items()}, folder.parent / "blob")
    assert planned(folder).weights_hash != first


@pytest.mark.parametrize("name", ["model.norm.weight", "lm_head.weight", "model.layers.1.mlp.up_proj.weight"])
def test_a_missing_tensor_is_known_before_loading(folder: Path, name: str) -> None:
    tensors = load_file(folder / "model.safetensors")
    del tensors[name]
    save_file(tensors, folder / "model.safetensors")
    assert refusal(folder).endswith(f"the weights are incomplete: 1 tensors are missing, as {name}")
    tensors["rotary.inv_freq"] = torch.ones(2)  # a name that this model does not have: others may be converted
    save_file(tensors, folder / "model.safetensors")
    if "layers" in name:
        assert f"as {name}" in refusal(folder)
    else:
        with pytest.raises(ModelError, match=f"the weights are incomplete: 1 tensors are missing, as {name}"):
            load_model(planned(folder))


@pytest.mark.parametrize(
    ("kind", "settings"),
    [
        ("mixtral", {"num_local_experts": 2}),  # its experts are joined on loading
        ("gpt2", {"n_embd": 32, "n_layer": 2, "n_head": 4, "vocab_size": 258}),  # names with and without a prefix
        ("llama", {"tie_word_embeddings": True}),
    ],
)
def test_weights_with_other_names_or_tied_are_complete(tmp_path: Path, kind: str, settings: dict[str, Any]) -> None:
    sizes = {} if kind == "gpt2" else GROUPED | {"vocab_size": 258}
    model = AutoModelForCausalLM.from_config(AutoConfig.for_model(kind, **sizes, **settings))
    save_model(tmp_path, model)
    planned(tmp_path)
    if kind == "gpt2":
        tensors = {n.removeprefix("transformer."): w for n, w in load_file(tmp_path / "model.safetensors").items()}
        save_file(tensors, tmp_path / "model.safetensors", metadata={"format": "pt"})
        assert load_model(planned(tmp_path)).prefill([0, 5]).logits.shape == (258,)


def test_an_adapter_is_not_left_out_silently(folder: Path) -> None:
    (folder / "adapter_config.json").write_text("{}")
    assert "the folder holds adapter_config.json: an adapter, which is not applied here" in refusal(folder)
    (folder / "config.json").unlink()
    assert "adapter_config.json" in refusal(folder)


def test_a_hub_cache_without_weights_is_not_called_another_format(
    folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (folder / "model.safetensors").unlink()
    monkeypatch.setattr(huggingface_hub, "snapshot_download", lambda *_, **__: str(folder))
    with pytest.raises(ModelError, match=r"^pair\.target\.path=some/one: the hub's cache has no \.safetensors weights"):
        find_model(ModelSpec("some/one"), "pair.target")


@pytest.mark.parametrize(
    "changes",
    [
        {"attn_implementation": "flash_attention_2"},
        {"_attn_implementation": "flex_attention"},
        {"attn_implementation": "someone/some-kernels"},
        {"attn_implementation": {"": "flex_attention"}},
        {"attn_implementation": "eager"},
        {"experts_implementation": "deepgemm"},
        {"return_dict": False},
        {"output_attentions": True},
    ],
)
def test_the_engine_chooses_attention_and_what_a_forward_returns(folder: Path, changes: dict[str, Any]) -> None:
    set_config(folder, **changes)
    model = load_model(planned(folder))
    assert model.model.config._attn_implementation == "specdraft_grouped"
    assert model.prefill([0, 5]).logits.shape == (258,)


def test_a_model_without_sdpa_gets_eager_attention(tmp_path: Path) -> None:
    save_model(tmp_path, random_model("gemma2"))
    set_config(tmp_path, attn_implementation="sdpa")
    assert load_model(planned(tmp_path)).model.config._attn_implementation == "eager"


@pytest.mark.parametrize("device", ["mps", "meta", "xpu"])
def test_devices_that_are_not_here(device: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(placement, "_accelerator", lambda: None)
    with pytest.raises(ConfigError, match=f"device={device}: this machine has no {device} device"):
        resolve_device(ModelSpec("x", device=device))
    monkeypatch.setattr(placement, "_accelerator", lambda: "mps")
    assert resolve_device(ModelSpec("x", device="mps")).type == "mps"


@pytest.mark.parametrize(
    ("settings", "words"),
    [
        ({"device": "spread"}, "device=spread needs accelerate (install the extra: pip install 'specdraft[spread]')"),
        (
            {"quantize": "4bit"},
            "quantize=4bit needs accelerate and bitsandbytes (install the extra: pip install 'specdraft[quantize]')",
        ),
    ],
)
def test_libraries_that_are_not_here(
    folder: Path, settings: dict[str, str], words: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(placement, "find_spec", lambda _: None)
    with pytest.raises(ModelError, match=re.escape(f"odd: {words}")):
        check_loadable(found(folder, **settings))


def test_transformers_says_nothing_around_loading(folder: Path, capfd: pytest.CaptureFixture[str]) -> None:
    class Kept(logging.Handler):
        def emit(self, record: logging.LogRecord) -> None:
            said.append(record.getMessage())

    said: list[str] = []
    tensors = load_file(folder / "model.safetensors")
    save_file(tensors | {"left.over": torch.ones(2)}, folder / "model.safetensors", metadata={"format": "pt"})
    verbosity, handler = transformers_logging.get_verbosity(), Kept()
    transformers_logging.set_verbosity_warning()
    transformers_logging.add_handler(handler)
    try:
        load_model(planned(folder))
        assert said == []
        assert capfd.readouterr() == ("", "")
        assert transformers_logging.get_verbosity() == logging.WARNING
        AutoModelForCausalLM.from_pretrained(folder)
        assert any("left.over" in line for line in said)  # what would have been said
    finally:
        transformers_logging.remove_handler(handler)
        transformers_logging.set_verbosity(verbosity)


def test_an_error_of_reading_names_the_folder_and_the_reason() -> None:
    verbosity = transformers_logging.get_verbosity()
    for error, words in ((ValueError("a\nb"), "a"), (KeyError("k"), "KeyError: 'k'"), (ZeroDivisionError(), "ZeroDi")):
        with pytest.raises(ModelError, match=f"^folder: no good: {words}"), reading("folder", "no good"):
            raise error
    assert transformers_logging.get_verbosity() == verbosity
