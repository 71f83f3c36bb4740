"""Hydra heads, recurrent drafters and block heads: what they learn, spelled out, what is written, what is refused."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from safetensors.torch import load_file
from support.block import block_said
from support.command_line import Run
from support.path_heads import hydra_inner, redrafter_inner
from support.tiny_models import PairFolders

from specdraft.commands.options import USAGE
from specdraft.drafters.pair import Pair
from specdraft.models.output_layer import OutputLayer
from specdraft.traces.watch import UNWATCHED
from specdraft.training.folder import CARD, LOG, SINGLE
from specdraft.training.parallel import RandomStarts, parallel_objective, read
from specdraft.training.path_heads import hydra_objective, redrafter_objective
from specdraft.training.settings import HydraTraining, ParallelTraining, RedrafterTraining
from specdraft.training.states import TextStates, text_states
from specdraft.training.texts import TrainingText

TEXT = "".join(f"{n} grey gulls sit on the wall, and if one flies away there are {n - 1}.\n" for n in range(60, 9, -1))
SMALL = ["train.window=48", "train.steps=6", "train.positions=128", "train.held_out=8"]
LAYERS = (1, 2)


@pytest.fixture
def states(tiny_pair: Pair, tmp_path: Path) -> TextStates:
    generator = np.random.default_rng(3)
    sizes = ((30, 0), (5, 0), (20, 7))
    texts = [TrainingText(generator.integers(2, 258, size).tolist(), first) for size, first in sizes]
    return text_states(tiny_pair, texts, tmp_path, UNWATCHED, LAYERS)


def test_states_of_further_layers_are_the_targets(tiny_pair: Pair, states: TextStates) -> None:
    for begin, end in zip(states.starts[:-1], states.starts[1:], strict=True):
        ids = torch.from_numpy(states.ids[begin:end])[None]
        with torch.inference_mode():
            hidden = tiny_pair.target.model(ids, output_hidden_states=True).hidden_states
        for number, layer in enumerate(LAYERS):
            given = states.features[begin:end, number].float()
            torch.testing.assert_close(given, hidden[layer][0], atol=0.02, rtol=0.01)


@pytest.mark.parametrize("kind", ["hydra", "redrafter"])
@pytest.mark.parametrize("labels", ["distribution", "text"])
def test_heads_learn_what_the_target_says_after_their_paths(
    kind: str, labels: str, tiny_pair: Pair, states: TextStates
) -> None:
    given: dict[str, Any] = {"heads": 2, "blocks": 2, "decay": 0.5, "labels": labels, "positions": 1000}
    if kind == "hydra":
        objective, inner = hydra_objective(tiny_pair, states, HydraTraining(**given)), hydra_inner
    else:
        objective, inner = redrafter_objective(tiny_pair, states, RedrafterTraining(**given)), redrafter_inner
    torch.manual_seed(5)
    for parameter in objective.parameters.values():
        parameter.data += 0.1 * torch.randn_like(parameter)
    said = objective.losses(0)
    embed = tiny_pair.target.model.get_input_embeddings().weight.detach()
    output, losses, count = OutputLayer(tiny_pair.target, "target"), [torch.zeros(()) for _ in range(2)], 0
    for first, begin, end in zip(states.first, states.starts[:-1], states.starts[1:], strict=True):
        for place in range(begin + first, end - 3):
            count += 1
            for head in range(2):
                path = [embed[token] for token in states.ids[place + 1 : place + 2 + head]]
                logs = torch.log_softmax(output(inner(objective.parameters, states.states[place].float(), path)), -1)
                if labels == "text":
                    losses[head] = losses[head] - logs[int(states.ids[place + 2 + head])]
                else:
                    wanted = torch.softmax(output(states.states[place + 1 + head].float()), -1)
                    losses[head] = losses[head] - (wanted * logs).sum()
    whole = (losses[0] + 0.5 * losses[1]) / count
    for head in range(2):
        torch.testing.assert_close(said[f"head_{head}"], losses[head].detach() / count, rtol=1e-4, atol=1e-5)
    torch.testing.assert_close(said["loss"], whole.detach(), rtol=1e-4, atol=1e-5)
    assert not any(parameter.grad is not None for parameter in tiny_pair.target.model.parameters())
    gradients = torch.autograd.grad(whole, list(objective.parameters.values()))
    for (name, parameter), slow in zip(objective.parameters.items(), gradients, strict=True):
        assert parameter.grad is not None, name
        torch.testing.assert_close(parameter.grad, slow, rtol=1e-3, atol=1e-5)


def test_a_block_learns_what_the_target_says_after_its_root(
    tiny_pair: Pair, states: TextStates, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Random starts are held still; features are kept in bfloat16."""
    asked = ParallelTraining(block=4, layers=2, target_layers=[0, 1], gamma=2.0, positions=9, mask_token=9)
    assert read(tiny_pair.files.target, asked) == LAYERS
    torch.manual_seed(1)
    head, objective = parallel_objective(tiny_pair, states, asked)
    for parameter in objective.parameters.values():
        parameter.data += 0.2 * torch.randn_like(parameter)
    chosen: list[tuple[np.ndarray, np.ndarray]] = []
    roots = RandomStarts._roots

    def kept(self: RandomStarts, texts: np.ndarray, random: np.random.Generator) -> np.ndarray:
        chosen.append((texts, roots(self, texts, random)))
        return chosen[-1][1]

    monkeypatch.setattr(RandomStarts, "_roots", kept)
    said, output = objective.losses(0), OutputLayer(tiny_pair.target, "target")
    ((texts, places),) = chosen
    losses = torch.zeros(3)
    tensors = {name: parameter.detach() for name, parameter in objective.parameters.items()}
    for text, row in zip(texts, places, strict=True):
        begin, ids = states.starts[text], states.ids[states.starts[text] : states.starts[text + 1]].tolist()
        for root in row.tolist():
            logits = block_said(tensors, tiny_pair.target.model, ids, root, head.shape)
            for depth in range(3):
                wanted = torch.softmax(output(states.states[begin + root + depth].float()), -1)
                losses[depth] -= (wanted * torch.log_softmax(logits[depth], -1)).sum() / places.size
    for depth in range(3):
        torch.testing.assert_close(said[f"depth_{depth + 1}"], losses[depth], rtol=0.02, atol=0.02)
    expected = float((losses * torch.exp(-torch.arange(3) / 2)).sum())
    assert float(said["loss"]) == pytest.approx(expected, rel=0.02)
    assert all(parameter.grad is not None and parameter.grad.any() for parameter in objective.parameters.values())


def test_roots_are_where_all_depths_are(tiny_pair: Pair, states: TextStates) -> None:
    asked = ParallelTraining(block=4, target_layers=[0, 1], positions=3000)
    head, _ = parallel_objective(tiny_pair, states, asked)
    learning = RandomStarts(tiny_pair, head, states, asked)
    roots = learning._roots(np.array([0, 2]), np.random.default_rng(0))
    assert (roots[0].min(), roots[0].max()) == (1, 26)
    assert (roots[1].min(), roots[1].max()) == (7, 16)


@pytest.fixture
def base(tiny_pair_folders: PairFolders, tmp_path: Path) -> list[str]:
    (tmp_path / "gulls.txt").write_text(TEXT)
    return [f"pair.target.path={tiny_pair_folders.target}", f"train.text={tmp_path / 'gulls.txt'}", *SMALL]


@pytest.mark.parametrize(
    ("kind", "more", "use"),
    [
        ("hydra", ["train.heads=2"], ["drafter.heads=2"]),
        ("redrafter", ["train.heads=2"], ["drafter.depth=2"]),
        ("parallel", ["train.block=3", "train.target_layers=[0,1]"], ["drafter.depth=2"]),
    ],
)
def test_what_is_written_drafts(
    kind: str, more: list[str], use: list[str], run: Run, base: list[str], tmp_path: Path
) -> None:
    out = tmp_path / "heads"
    said = run("train", kind, *base, *more, "--out", out, "--json")
    assert said.code == 0, said.err
    assert {path.name for path in out.iterdir()} == {SINGLE, "config.json", CARD, LOG}
    assert {str(tensor.dtype) for tensor in load_file(out / SINGLE).values()} == {"torch.bfloat16"}
    told = json.loads(said.out)
    assert told["use"] == " ".join([f"drafter={kind} drafter.path=DIR", *use])
    assert len(told["held_out"]["by_depth"]) == 2
    words = [f"drafter={kind}", f"drafter.path={out}", *use, "tree=chain", "budget=2", "max_new_tokens=6"]
    drafted = run("generate", "nine grey", base[0], *words, "--json")
    assert drafted.code == 0, drafted.err


@pytest.mark.parametrize(
    ("asked", "said"),
    [
        ("train.target_layers=[0,2]", "train.target_layers=2 is out of range; expected 0 to 1"),
        ("train.mask_token=258", "train.mask_token=258 is out of range; the target has 258 embeddings"),
        ("train.attention_heads=5", "train.attention_heads=5: 32 numbers are not so many heads of an even size"),
        ("train.block=1", "train.block=1 is out of range; expected 2 or more"),
        ("train.gamma=0", "train.gamma=0.0 is out of range; expected more than 0"),
        ("train.block=60", "no text is longer than a block of train.block=60; nothing can be learnt"),
    ],
)
def test_what_cannot_be_meant(asked: str, said: str, run: Run, base: list[str], tmp_path: Path) -> None:
    ended = run("train", "parallel", *base, asked, "--out", tmp_path / "out")
    assert ended.code == USAGE
    assert said in ended.err.splitlines()[-1]
