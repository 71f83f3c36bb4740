from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import psutil
import pytest
import torch
from support.caches import cached_in
from support.command_line import Run, one_line
from support.tiny_models import ARCHITECTURES, PairFolders, byte_tokenizer, random_model, save_model
from torch.utils.flop_counter import FlopCounterMode
from transformers import DynamicCache

from specdraft.drafters.pair import find_pair, load_pair
from specdraft.errors import ModelError
from specdraft.models import sizes
from specdraft.models.files import ModelFiles, find_model
from specdraft.models.sizes import gib, model_size, too_large, total_memory
from specdraft.models.spec import ModelSpec

TOKENS = 3  # fewer than the windows of the tiny models


def found(folder: Path, **how: str) -> ModelFiles:
    return find_model(ModelSpec(str(folder), device="cpu", **how), "pair.target")  # type: ignore[arg-type]


@pytest.mark.parametrize("name", ["llama", "gpt2", "qwen3", "gemma3", "gpt_neox", "gpt_oss"])
def test_against_the_model_itself(name: str, tmp_path: Path) -> None:
    model, cache = random_model(name), DynamicCache()
    counter = FlopCounterMode(display=False)
    with torch.inference_mode(), counter:
        model(input_ids=torch.zeros(1, TOKENS, dtype=torch.long), **cached_in(model, cache))
    size = model_size(found(save_model(tmp_path, model, byte_tokenizer())))
    assert size.parameters == model.num_parameters()
    assert size.weights_bytes == sum(p.numel() * p.element_size() for p in model.parameters())
    assert size.state_bytes == sum(layer.keys.nbytes + layer.values.nbytes for layer in cache.layers) / TOKENS
    assert size.logits_bytes == 4 * model.config.vocab_size
    assert size.exact
    if name != "gpt_oss":  # its experts are all gone through here
        products = sum(n for what, n in counter.get_flop_counts()["Global"].items() if "attention" not in str(what))
        assert 2 * size.active_parameters * TOKENS == pytest.approx(products, rel=0.05)


def test_experts_that_a_token_does_not_go_to(tmp_path: Path) -> None:
    settings = ARCHITECTURES["gpt_oss"][1]
    assert (settings["num_local_experts"], settings["num_experts_per_tok"]) == (4, 2)
    model = random_model("gpt_oss")
    experts = sum(p.numel() for name, p in model.named_parameters() if ".experts." in name)
    looked_up = model.get_input_embeddings().weight.numel()
    size = model_size(found(save_model(tmp_path, model, byte_tokenizer())))
    assert experts > 0
    assert size.active_parameters == model.num_parameters() - looked_up - experts // 2


class TestTooLarge:
    @pytest.fixture
    def both(self, tiny_pair_folders: PairFolders, monkeypatch: pytest.MonkeyPatch) -> list[ModelFiles]:
        """Two models, and a device that has a byte less than their weights."""
        both = [found(folder) for folder in tiny_pair_folders]
        needed = sum(model_size(files).weights_bytes for files in both)
        monkeypatch.setattr(sizes, "total_memory", lambda device: needed - 1)
        return both

    def test_both_together(self, both: list[ModelFiles]) -> None:
        why = too_large("mine", both)
        assert why is not None
        weights = [f"{gib(model_size(files).weights_bytes)} of {files.spec.path} (float32)" for files in both]
        assert why.startswith(f"pair mine: the weights take {weights[0]} and {weights[1]}, and cpu has ")
        assert why.endswith("or device=spread")
        assert too_large("mine", both[:1]) is None

    def test_what_just_fits(self, both: list[ModelFiles], monkeypatch: pytest.MonkeyPatch) -> None:
        needed = sum(model_size(files).weights_bytes for files in both)
        monkeypatch.setattr(sizes, "total_memory", lambda device: needed)
        assert too_large("mine", both) is None

    @pytest.mark.parametrize(
        "how", [{"device": "spread"}, {"quantize": "4bit"}, {"quantize": "8bit"}, {"dtype": "bfloat16"}]
    )
    def test_no_false_refusal(self, both: list[ModelFiles], how: dict[str, str]) -> None:
        other = ModelFiles(replace(both[0].spec, **how), both[0].folder)  # type: ignore[arg-type]
        assert too_large("mine", [other, both[1]]) is None

    def test_stored_quantised(self, both: list[ModelFiles]) -> None:
        both[0].config.quantization_config = {"quant_method": "gptq"}
        assert too_large("mine", both) is None
        assert model_size(both[0]).weights_bytes == (both[0].folder / "model.safetensors").stat().st_size

    def test_memory_that_cannot_be_told(self, both: list[ModelFiles], monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr(sizes, "total_memory", lambda device: None)
        assert too_large("mine", both) is None

    @pytest.mark.parametrize("command", [("sweep",), ("generate", "Hi")])
    def test_commands(
        self, run: Run, both: list[ModelFiles], command: tuple[str, ...], monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setattr("specdraft.models.loading.load_model", lambda *given: pytest.fail("a model was loaded"))
        pair = [f"pair.{role}.path={m.spec.path}" for role, m in zip(("target", "draft"), both, strict=True)]
        pair += [f"pair.{role}.device=cpu" for role in ("target", "draft")]
        line = one_line(run(*command, *pair, "tree=chain", "budget=2"))
        assert line.startswith("error: pair target+draft: the weights take ")

    def test_a_pair_is_not_loaded(self, both: list[ModelFiles], tiny_pair_folders: PairFolders) -> None:
        with pytest.raises(ModelError, match="pair tiny: the weights take"):
            load_pair(tiny_pair_folders.spec())

    def test_a_dry_run_warns(self, run: Run, both: list[ModelFiles]) -> None:
        pair = [f"pair.{role}.path={m.spec.path}" for role, m in zip(("target", "draft"), both, strict=True)]
        pair += [f"pair.{role}.device=cpu" for role in ("target", "draft")]
        said = run("sweep", *pair, "tree=chain", "budget=2", "prompts.limit=1", "max_new_tokens=4", "--dry-run")
        assert said.code == 0
        (warning,) = [line for line in said.out.splitlines() if line.startswith("warning: ")]
        assert warning.startswith("warning: a sweep will refuse this: pair target+draft: the weights take ")

    def test_bundled_models_are_not_built_for_it(self, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr(sizes, "model_size", lambda files: pytest.fail("built"))
        from specdraft.config import load_group
        from specdraft.models.spec import PairSpec

        find_pair(load_group("pair", "zoo", PairSpec)).check_memory()


def test_memory_of_this_machine() -> None:
    assert total_memory(torch.device("cpu")) == psutil.virtual_memory().total + psutil.swap_memory().total
    assert total_memory(torch.device("meta")) is None


def test_bytes_for_people() -> None:
    assert [gib(size) for size in (2**30, 1.5 * 2**30, 2**20, 40 * 2**30)] == [
        "1 GiB",
        "1.5 GiB",
        "0.000977 GiB",
        "40 GiB",
    ]
