"""Training-time test of an EAGLE-3 head: the passes against drafting from scratch, what is written, what is refused."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors.torch import load_file
from support.command_line import Run
from support.stopping import Stop
from support.tiny_models import VOCAB, PairFolders

from specdraft.commands.options import USAGE
from specdraft.drafters.pair import Pair
from specdraft.models.output_layer import OutputLayer
from specdraft.traces.watch import UNWATCHED
from specdraft.training import windows
from specdraft.training.eagle import DraftVocabulary, eagle_objective
from specdraft.training.run import CARD, LOG, WORK, train_eagle
from specdraft.training.settings import EagleTraining
from specdraft.training.states import TextStates, text_states
from specdraft.training.texts import TrainingText

pytestmark = pytest.mark.usefixtures("few_rounds")

LAYERS = (1, 2, 3)
SMALL = ["train.window=48", "train.steps=6", "train.positions=128", "train.held_out=8", "train.save_every=4"]


@pytest.fixture
def states(tiny_pair: Pair, tmp_path: Path) -> TextStates:
    generator = np.random.default_rng(3)
    texts = [
        TrainingText(generator.integers(2, VOCAB, size).tolist(), first) for size, first in ((20, 0), (4, 0), (14, 7))
    ]
    return text_states(tiny_pair, texts, tmp_path, UNWATCHED, LAYERS)


def asked(**changes: object) -> EagleTraining:
    return EagleTraining(aux_layers=list(LAYERS), positions=60, depths=3, decay=0.5, **changes)  # type: ignore[arg-type]


def test_further_layers_are_kept_beside_the_last(tiny_pair: Pair, states: TextStates) -> None:
    begin, end = states.starts[:2]
    ids = torch.from_numpy(states.ids[begin:end])[None]
    with torch.inference_mode():
        hidden = tiny_pair.target.model(ids, output_hidden_states=True).hidden_states
    for place, layer in enumerate(LAYERS):
        found = states.features[begin:end, place].float()
        torch.testing.assert_close(found, hidden[layer][0], atol=0.05, rtol=0.01)
    torch.testing.assert_close(states.states[begin:end].float(), hidden[-1][0], atol=0.05, rtol=0.01)


@pytest.mark.parametrize("draft_vocab", [None, 100])
def test_passes_are_drafting_from_every_place(
    tiny_pair: Pair, states: TextStates, draft_vocab: int | None, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Slow and plain: below each entry the head reads the whole text before it again for every drafted token."""
    settings = asked(draft_vocab=draft_vocab)
    head, vocabulary, objective = eagle_objective(tiny_pair, states, settings)
    said = objective.losses(0)
    gradient = head.fc.weight.grad
    assert gradient is not None
    whole, head.fc.weight.grad = gradient.clone(), None
    sums, counts = [torch.zeros(()) for _ in range(3)], [0] * 3
    output, embeddings = OutputLayer(tiny_pair.target, "x"), tiny_pair.target.model.get_input_embeddings()
    some = torch.arange(VOCAB) if vocabulary.ids is None else vocabulary.ids
    for begin, end, first in zip(states.starts[:-1], states.starts[1:], states.first, strict=True):
        ids, features = torch.from_numpy(states.ids[begin:end]), states.features[begin:end].float()
        teacher = output(states.states[begin:end].float())
        for root in range(len(ids) - 1):
            read = head.fuse(features[: root + 1])
            for depth in range(3):
                last = root + 1 + depth
                if last >= len(ids):
                    break
                out = head.read(embeddings(ids[1 : last + 1]).detach()[None], read[None])
                read = torch.cat([read, out.fed[0, -1:]])
                if last < first:
                    continue
                counts[depth] += 1
                if int(teacher[last].argmax()) in some.tolist():
                    wanted = torch.softmax(teacher[last][some], -1)
                    sums[depth] = sums[depth] - (wanted * torch.log_softmax(output(out.said[0, -1])[some], -1)).sum()
    losses = [total / count for total, count in zip(sums, counts, strict=True)]
    torch.autograd.backward(sum((0.5**s * loss for s, loss in enumerate(losses)), torch.zeros(())))
    for depth, loss in enumerate(losses, start=1):
        assert float(said[f"depth_{depth}"]) == pytest.approx(float(loss.detach()), rel=1e-4)
    torch.testing.assert_close(whole, head.fc.weight.grad, atol=1e-5, rtol=1e-3)
    monkeypatch.setattr(windows, "NUMBERS", 1)  # a text at a time
    _, _, parts = eagle_objective(tiny_pair, states, settings)
    assert float(parts.losses(0)["loss"]) == pytest.approx(float(said["loss"]), rel=1e-5)


def test_a_draft_vocabulary_are_the_most_frequent_ids(states: TextStates) -> None:
    maps = DraftVocabulary.of(states, VOCAB, 9).maps(VOCAB)
    ids = torch.arange(9) + maps["d2t"]
    times = np.bincount(states.learnt_ids, minlength=VOCAB)
    assert sorted(times[ids], reverse=True) == sorted(times, reverse=True)[:9]
    assert torch.nonzero(maps["t2d"])[:, 0].tolist() == ids.tolist()
    assert DraftVocabulary.of(states, VOCAB, VOCAB).maps(VOCAB) == {}


@pytest.fixture
def base(tiny_pair_folders: PairFolders, tmp_path: Path) -> list[str]:
    text = tmp_path / "bottles.txt"
    text.write_text("".join(f"{n} green bottles hang on the wall, and {n - 1} fall.\n" for n in range(60, 9, -1)))
    return [f"pair.target.path={tiny_pair_folders.target}", f"train.text={text}", *SMALL, "train.aux_layers=[1,2,3]"]


def test_what_is_written_drafts_and_goes_on_learning(run: Run, base: list[str], tmp_path: Path) -> None:
    out = tmp_path / "head"
    made = run("train", "eagle", *base, "train.draft_vocab=60", "train.products=bfloat16", "--out", out)
    assert made.code == 0, made.err
    assert not (out / WORK).exists() and (out / LOG).exists()
    assert "drafter=eagle drafter.path=DIR" in (out / CARD).read_text()
    stored = load_file(out / "model.safetensors")
    assert stored["d2t"].shape == (60,) and "lm_head.weight" not in stored and "embed_tokens.weight" not in stored
    assert json.loads((out / "config.json").read_text())["draft_vocab_size"] == 60
    swept = [*base[:1], "drafter=eagle", f"drafter.path={out}", "tree=chain,expand_rerank", "budget=4"]
    ended = run("sweep", *swept, "prompts.limit=2", "max_new_tokens=8", "report=false", "--out", tmp_path / "study")
    assert ended.code == 0, ended.err
    again = run("train", "eagle", *base, f"train.start={out}", "train.whole=false", "train.continued=6", "--out",
                tmp_path / "again")  # fmt: skip
    assert again.code == 0, again.err


def test_goes_on_after_a_kill(base: list[str], tmp_path: Path) -> None:
    words = [*base, "train.draft_vocab=60"]
    whole = train_eagle(words, tmp_path / "whole", None, False, UNWATCHED)
    with pytest.raises(KeyboardInterrupt):
        train_eagle(words, tmp_path / "killed", None, False, Stop(4))
    assert {path.name for path in (tmp_path / "killed").iterdir()} == {WORK}
    gone_on = train_eagle(words, tmp_path / "killed", None, False, Stop(2))  # of the 6 steps, four were kept
    assert gone_on.trained.log[-1]["loss"] == whole.trained.log[-1]["loss"]
    one, other = (load_file(tmp_path / name / "model.safetensors") for name in ("whole", "killed"))
    assert one.keys() == other.keys() and all(torch.equal(one[name], other[name]) for name in one)


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["train.aux_layers=null"], "the target has 3 layers, too few for three different ones of EAGLE-3"),
        (["train.aux_layers=[1,9]"], "train.aux_layers=[1, 9]: expected different ones of 0 to 3"),
        (["train.depths=0"], "train.depths=0 is out of range; expected 1 or more"),
        (["train.attention_heads=5"], "train.attention_heads=5: 32 numbers are not so many heads of an even size"),
        (["train.products=int8"], "train.products=int8 is not known"),
        (["train.start=nowhere"], "train.start=nowhere: there are no weights"),
        (["train.whole=false"], "train.whole=false leaves nothing of train.text without train.continued"),
    ],
)
def test_bad_input(words: list[str], said: str, run: Run, base: list[str], tmp_path: Path) -> None:
    ended = run("train", "eagle", *base, *words, "--out", tmp_path / "out")
    assert ended.code == USAGE
    assert said in ended.err.splitlines()[-1]
