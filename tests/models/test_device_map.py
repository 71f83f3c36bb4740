"""A model over several devices: the processor, twice, stands for two graphics cards, with all that moves tensors from
one card to the next."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from support.engine_runs import engine_called, study_of, untimed_rows, work_of
from support.tiny_models import ARCHITECTURES, PairFolders, byte_tokenizer, random_model, save_model, tiny_llama

from specdraft.drafters.pair import load_pair
from specdraft.errors import ConfigError
from specdraft.models import loading, placement
from specdraft.models.device_map import device_map, divided
from specdraft.models.files import ModelFiles, find_model
from specdraft.models.loading import load_checked, load_model
from specdraft.models.spec import ModelSpec
from specdraft.study.plan import plan_study

CARDS = [torch.device("cpu")] * 2
NUMBERED = [torch.device("cuda", number) for number in range(3)]
GRID = ["tree=chain,kary,best_first", "budget=2,4", "max_new_tokens=5"]


def weights_on(model: torch.nn.Module, device: torch.device, placed: dict[str, torch.device]) -> int:
    found: dict[int, int] = {}
    for name, where in placed.items():
        if where == device:
            found |= {id(p): p.numel() for p in model.get_submodule(name).parameters()}
    return sum(found.values())


@pytest.mark.parametrize("count", [1, 2, 3])
@pytest.mark.parametrize("name", ARCHITECTURES)
def test_every_weight_has_one_device_and_devices_are_about_equally_full(name: str, count: int) -> None:
    model, devices = random_model(name), NUMBERED[:count]
    placed = divided(model, devices)
    where: dict[int, set[torch.device]] = {}
    for part, device in placed.items():
        for parameter in model.get_submodule(part).parameters():
            where.setdefault(id(parameter), set()).add(device)
    assert where == {id(p): where[id(p)] for p in model.parameters()}  # none is left out
    assert all(len(devices) == 1 for devices in where.values())  # tied ones too
    whole = sum(parameter.numel() for parameter in model.parameters())
    largest = max(sum(p.numel() for p in model.get_submodule(part).parameters()) for part in placed)
    assert all(weights_on(model, device, placed) <= whole / count + largest for device in devices)
    assert model.get_input_embeddings().weight.numel() and placed[_embeddings(model)] == devices[0]


def _embeddings(model: torch.nn.Module) -> str:
    return next(name for name, module in model.named_modules() if module is model.get_input_embeddings())


def test_blocks_are_in_their_order_and_not_taken_apart() -> None:
    model = tiny_llama(num_hidden_layers=12, tie_word_embeddings=False)
    placed = divided(model, NUMBERED)
    order = [placed[f"model.layers.{number}"].index for number in range(12)]
    assert order == sorted(order) and set(order) == {0, 1, 2}
    assert placed["lm_head"] == placed["model.norm"] == NUMBERED[2]
    assert placed["model.rotary_emb"] == NUMBERED[0]
    assert not any(name.startswith("model.layers.0.") for name in placed)


def test_what_shares_weights_goes_where_they_are() -> None:
    model = torch.nn.Module()
    model.first, model.second, model.third = (torch.nn.Linear(8, 8) for _ in range(3))
    model.third.weight = model.second.weight
    assert [*divided(model, NUMBERED[:2]).values()] == [NUMBERED[0], NUMBERED[1], NUMBERED[1]]
    model.third.weight = model.first.weight
    assert [*divided(model, NUMBERED[:2]).values()] == [NUMBERED[0], NUMBERED[1], NUMBERED[0]]


@pytest.fixture
def two_cards(monkeypatch: pytest.MonkeyPatch) -> None:
    """Two cards, and the hooks between modules that `transformers` sets where they are two devices."""
    accelerate = pytest.importorskip("accelerate")

    maps: list[dict[str, torch.device]] = []

    def noted(*given: Any) -> dict[str, torch.device]:
        maps.append(device_map(*given))
        return maps[-1]

    def hooked(model: torch.nn.Module) -> torch.nn.Module:
        if maps:
            accelerate.dispatch_model(model, maps.pop(), force_hooks=True, skip_keys="past_key_values")
        return model

    monkeypatch.setattr(loading, "device_map", noted)
    monkeypatch.setattr(loading, "suit_few_tokens", hooked)
    monkeypatch.setattr(placement, "cards", lambda: CARDS)


def over_two(folder: Path) -> ModelFiles:
    return find_model(ModelSpec(str(folder), device="spread:2"), "target")


@pytest.mark.parametrize("name", ["llama", "gpt2", "gemma3", "gpt_oss"])
def test_a_divided_model_says_what_it_says_whole(name: str, tmp_path: Path, two_cards: None) -> None:
    folder = save_model(tmp_path, random_model(name), byte_tokenizer())
    whole = load_checked(find_model(ModelSpec(str(folder), device="cpu"), "target"))
    both = load_checked(over_two(folder))
    hooks = [module for module in both.model.model.modules() if hasattr(module, "_hf_hook")]
    assert len(hooks) > 3 and set(both.model.model.hf_device_map) == set(divided(both.model.model, CARDS))
    text = [5, 9, 3, 7, 2]
    assert torch.equal(both.model.after(text), whole.model.after(text))
    assert both.check == whole.check


@pytest.mark.parametrize("engine", ["replay", "live"])
def test_the_engines_on_a_divided_target(
    engine: str, tiny_pair_folders: PairFolders, tmp_path: Path, two_cards: None
) -> None:
    base = study_of(tiny_pair_folders, tmp_path, ["Once", "Upon a time"])
    over = [o for o in base if "target.device" not in o] + ["resources.target.gpus=2"]
    grid = [*GRID, "cost.measure=off"] if engine == "replay" else [*GRID, "engine=live", "batch=1,2", "cache=static"]
    said = []
    for number, asked in enumerate((base, over)):
        work = work_of(plan_study([*asked, *grid]), engine)
        assert work.pair.target.spec.cards == (2 if number else None)
        made = engine_called(engine, tmp_path / str(number)).run(work, load_pair(work.pair))
        said.append(untimed_rows(made))
    assert said[0] == said[1] and said[0]


def test_more_cards_than_there_are(tiny_pair_folders: PairFolders, monkeypatch: pytest.MonkeyPatch) -> None:
    files = over_two(tiny_pair_folders.target)
    monkeypatch.setattr(placement, "cards", lambda: CARDS[:1])
    with pytest.raises(ConfigError, match=r"a model over 2 graphics cards .*: here is 1$"):
        load_model(files)
