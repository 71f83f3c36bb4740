"""The target's first layers as a drafter: the same tensors, the same numbers as a model that has these layers only."""

from __future__ import annotations

import copy
from pathlib import Path

import pytest
import torch
from support.command_line import Run, one_line
from support.tiny_models import ARCHITECTURES, SMALL_VOCAB, PairFolders, random_model
from transformers import AutoModelForCausalLM

from specdraft.acceptance import Greedy
from specdraft.commands.options import DONE
from specdraft.decoding.decode import Ending, decode
from specdraft.decoding.verifier import Verifier
from specdraft.drafters.early_exit import EarlyExit
from specdraft.drafters.loaded.early_exit import EarlyExitDrafter
from specdraft.drafters.pair import Pair, find_pair, load_pair
from specdraft.errors import ConfigError
from specdraft.models.cached_model import CachedModel
from specdraft.models.files import ModelFiles
from specdraft.models.first_layers import share_first_layers
from specdraft.models.spec import ModelSpec
from specdraft.sampling.distribution import Sampling
from specdraft.trees.shapes.kary import Kary

IDS = torch.randint(0, SMALL_VOCAB, (12,), generator=torch.Generator().manual_seed(3)).tolist()  # longer than windows


@pytest.mark.parametrize("name", ARCHITECTURES)
def test_as_a_model_that_has_these_layers_only(name: str) -> None:
    whole = random_model(name)
    config = copy.deepcopy(whole.config)
    config.num_hidden_layers = 2
    if kinds := getattr(config, "layer_types", None):
        config.layer_types = kinds[:2]
    alone = AutoModelForCausalLM.from_config(config).eval()
    names = alone.state_dict()
    alone.load_state_dict({key: tensor for key, tensor in whole.state_dict().items() if key in names})
    target = CachedModel(whole, SMALL_VOCAB)
    before = target.after(IDS)
    short = share_first_layers(target, 2, name)
    torch.testing.assert_close(short.after(IDS), CachedModel(alone, SMALL_VOCAB).after(IDS), atol=1e-5, rtol=1e-5)
    assert not torch.allclose(short.after(IDS), before, atol=1e-2)
    torch.testing.assert_close(target.after(IDS), before, atol=0, rtol=0)
    held = {tensor.data_ptr() for tensor in whole.parameters()}
    assert all(tensor.data_ptr() in held for tensor in short.model.parameters())


@pytest.fixture(scope="module")
def early(tiny_pair: Pair) -> Pair:
    return load_pair(tiny_pair.files.spec, EarlyExit(layers=2), target_of=tiny_pair)


def test_drafts_what_a_draft_model_of_these_layers_drafts(early: Pair, tiny_pair: Pair) -> None:
    """The tiny draft model is the target's first two layers."""
    text = "one two one two one two one"
    setting = (Kary().at(6), Greedy(), Sampling(), early.encode(text), Ending(20, early.eos_ids))
    found, wanted = (decode(Verifier(p.target), p.drafter, *setting).finish() for p in (early, tiny_pair))
    assert found.tokens == wanted.tokens
    assert [step.tree.token_list() for step in found.steps] == [step.tree.token_list() for step in wanted.steps]
    assert any(step.accepted for step in found.steps)


def test_what_is_known_of_it(early: Pair, tiny_pair: Pair) -> None:
    assert isinstance(early.drafter, EarlyExitDrafter)
    assert early.files.draft is None
    assert early.traits.probabilities
    facts = early.draft_facts
    assert facts["drafter"] == {"kind": "early_exit", "path": None, "layers": 2}
    assert facts["weights"] == tiny_pair.files.target.weights_hash
    said = early.describe()["draft"]
    assert (said["layers"], said["of_layers"]) == (2, 3)
    assert said["self_check"]["error"] < 1e-3
    assert EarlyExit(layers=2).label == "early_exit-l2"


class Layered(ModelFiles):
    """A target that is known by its number of layers alone."""

    def __init__(self, layers: int, **spec: str) -> None:
        super().__init__(ModelSpec("big", **spec), Path())
        vars(self).update(layers=layers, quantised=False)


def test_a_quarter_of_the_layers_where_nothing_is_said() -> None:
    assert [EarlyExit().layers_of(Layered(count)) for count in (2, 8, 30, 32)] == [1, 2, 7, 8]
    assert EarlyExit(layers=5).layers_of(Layered(30)) == 5


@pytest.mark.parametrize(
    ("spec", "target", "words"),
    [
        (EarlyExit(layers=3), Layered(3), "drafter.layers=3 is out of range; big has 3 layers, expected fewer"),
        (EarlyExit(), Layered(1), "drafter.layers=1 is out of range; big has 1 layers"),
        (EarlyExit(), Layered(8, device="spread"), "which does not go with device=spread (big)"),
        (EarlyExit(), Layered(8, quantize="4bit"), "which does not go with quantised weights (big)"),
    ],
)
def test_targets_that_it_cannot_draft_for(spec: EarlyExit, target: ModelFiles, words: str) -> None:
    with pytest.raises(ConfigError) as raised:
        spec.check_target(target)
    assert words in str(raised.value)


@pytest.mark.parametrize(
    ("spec", "words"),
    [
        (EarlyExit(layers=0), "drafter.layers=0 is out of range; expected 1 or more"),
        (EarlyExit(path="x"), "drafter.path=x: drafter=early_exit has no weights; leave it out"),
    ],
)
def test_settings_that_no_target_goes_with(spec: EarlyExit, words: str, tiny_pair: Pair) -> None:
    with pytest.raises(ConfigError, match=words):
        find_pair(tiny_pair.files.spec, spec)


def test_more_layers_than_there_are(tiny_pair_folders: PairFolders, run: Run) -> None:
    """Also of a pair that was planned before."""
    dry = [
        "sweep",
        f"pair.target.path={tiny_pair_folders.target}",
        "pair.name=t",
        "tree=chain",
        "budget=2",
        "--dry-run",
    ]
    assert run(*dry, "drafter=early_exit", "drafter.layers=2", "prompts.limit=2").code == DONE
    said = run(*dry, "drafter=early_exit", "drafter.layers=3", "prompts.limit=2")
    assert "drafter.layers=3 is out of range; " in one_line(said)
