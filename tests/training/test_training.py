"""Training drafters: what is learnt, going on after a kill, what is written, and what is refused."""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
import torch
from safetensors.torch import load_file
from support.command_line import Run
from support.stopping import Stop
from support.tiny_models import PairFolders

from specdraft.commands.options import USAGE
from specdraft.drafters.pair import Pair
from specdraft.models.output_layer import OutputLayer
from specdraft.results.locks import locked
from specdraft.study.plan import one_combination
from specdraft.traces.store import TraceStore
from specdraft.traces.watch import UNWATCHED
from specdraft.training import windows
from specdraft.training.draft_model import draft_objective, new_draft_model
from specdraft.training.folder import CARD, HEADS, LOG, WORK
from specdraft.training.joint import TARGET, joint_objective
from specdraft.training.medusa import RUN, Candidates, medusa_objective, shuffled
from specdraft.training.run import train_draft, train_medusa
from specdraft.training.settings import DraftTraining, MedusaTraining
from specdraft.training.states import TextStates, text_states
from specdraft.training.texts import TrainingText, gather_texts

TEXT = "".join(
    f"{n} green bottles hang on the wall, and if one of them falls there are {n - 1}.\n" for n in range(60, 9, -1)
)
SMALL = ["train.window=48", "train.steps=12", "train.positions=256", "train.held_out=8", "train.save_every=4"]


@pytest.fixture(scope="module")
def text(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("text") / "bottles.txt"
    path.write_text(TEXT)
    return path


@pytest.fixture
def base(tiny_pair_folders: PairFolders, text: Path) -> list[str]:
    return [f"pair.target.path={tiny_pair_folders.target}", f"train.text={text}", *SMALL]


@pytest.fixture
def states(tiny_pair: Pair, tmp_path: Path) -> TextStates:
    generator = np.random.default_rng(3)
    texts = [
        TrainingText(generator.integers(2, 258, size).tolist(), first) for size, first in ((90, 0), (5, 0), (40, 7))
    ]
    return text_states(tiny_pair, texts, tmp_path, UNWATCHED)


def texts_of(states: TextStates) -> list[TrainingText]:
    bounds = zip(states.starts[:-1], states.starts[1:], states.first, strict=True)
    return [TrainingText(states.ids[begin:end].tolist(), int(first)) for begin, end, first in bounds]


def some_weights(parameters: dict[str, torch.nn.Parameter]) -> None:
    torch.manual_seed(5)
    for parameter in parameters.values():
        parameter.data += 0.1 * torch.randn_like(parameter)


class TestStates:
    def test_they_are_the_targets(self, tiny_pair: Pair, states: TextStates) -> None:
        for begin, end in zip(states.starts[:-1], states.starts[1:], strict=True):
            ids = torch.from_numpy(states.ids[begin:end])[None]
            with torch.inference_mode():
                expected = tiny_pair.target.model.model(ids).last_hidden_state[0]
            torch.testing.assert_close(states.states[begin:end].float(), expected, atol=0.02, rtol=0.01)

    def test_are_read_once(self, tiny_pair: Pair, states: TextStates, tmp_path: Path) -> None:
        texts = texts_of(states)
        states.states[0, 0] = 77.0
        assert text_states(tiny_pair, texts, tmp_path, UNWATCHED).states[0, 0] == 77
        changed = [TrainingText([9, *texts[0].ids[1:]]), *texts[1:]]
        assert text_states(tiny_pair, changed, tmp_path, UNWATCHED).states[0, 0] != 77


@pytest.mark.parametrize("labels", ["distribution", "text"])
def test_heads_learn_what_the_target_says_further_on(tiny_pair: Pair, states: TextStates, labels: str) -> None:
    asked = MedusaTraining(heads=3, blocks=2, decay=0.5, labels=labels, positions=4 * RUN)
    objective = medusa_objective(tiny_pair, states, asked)
    some_weights(objective.parameters)
    said = objective.losses(0)
    gradients = {
        name: parameter.grad.clone() for name, parameter in objective.parameters.items() if parameter.grad is not None
    }
    objective.parameters["0.0.linear.weight"].grad = None

    output, given = OutputLayer(tiny_pair.target, "target"), objective.parameters
    expected, count = [torch.zeros(()) for _ in range(3)], 0
    for first, begin, end in zip(states.first, states.starts[:-1], states.starts[1:], strict=True):
        for place in range(begin + first, end - 4):  # three heads, and the token after what the last one is asked
            count += 1
            for head in range(3):
                x = states.states[place].float()
                for block in range(2):
                    inside = given[f"{head}.{block}.linear.weight"] @ x + given[f"{head}.{block}.linear.bias"]
                    x = x + inside * torch.sigmoid(inside)
                logs = torch.log_softmax(output(x), -1)
                if labels == "text":
                    expected[head] = expected[head] - logs[int(states.ids[place + 2 + head])]
                else:
                    wanted = torch.softmax(output(states.states[place + 1 + head].float()), -1)
                    expected[head] = expected[head] - (wanted * logs).sum()
    assert count == (90 - 4) + 1 + (40 - 4 - 7)
    for head in range(3):
        torch.testing.assert_close(said[f"head_{head}"], expected[head].detach() / count, rtol=1e-4, atol=1e-5)
    whole = sum(0.5**head * loss for head, loss in enumerate(expected)) / count
    torch.testing.assert_close(said["loss"], whole.detach(), rtol=1e-4, atol=1e-5)
    (slow,) = torch.autograd.grad(whole, [given["0.0.linear.weight"]])
    torch.testing.assert_close(gradients["0.0.linear.weight"], slow, rtol=1e-3, atol=1e-5)


def test_some_ids_stand_for_the_others(tiny_pair: Pair, states: TextStates) -> None:
    """Over many draws the sum of exponentials is that of all ids."""
    output, ids = OutputLayer(tiny_pair.target, "target"), states.ids % 50
    said = Candidates(output, 258, ids, MedusaTraining(candidates=60))
    at, (known,) = states.states[:4].float() / 10, np.unique(ids)[None]
    totals = []
    for step in range(200):
        said.choose(step)
        logits = said.logits(at)
        assert logits.shape == (4, said.count) == (4, len(known) + 60)
        torch.testing.assert_close(logits[:, : len(known)], output(at)[:, known])
        totals.append(logits.exp().sum(-1))
    assert torch.stack(totals).std(0).min() > 0
    torch.testing.assert_close(torch.stack(totals).mean(0), output(at).exp().sum(-1), rtol=0.03, atol=0.0)
    assert known[said.place_of(ids[:9])].tolist() == ids[:9].tolist()
    whole = Candidates(output, 258, ids, MedusaTraining(candidates=10_000))
    whole.choose(3)
    torch.testing.assert_close(whole.logits(at), output(at))
    assert whole.place_of(ids[:9]).tolist() == ids[:9].tolist()


def test_a_draft_model_learns_what_the_target_says(tiny_pair: Pair, states: TextStates) -> None:
    asked = DraftTraining(layers=1, positions=1000)
    model = new_draft_model(tiny_pair, asked)
    said = draft_objective(tiny_pair, model, states, asked).losses(0)["loss"]
    output = OutputLayer(tiny_pair.target, "target")
    total, count = 0.0, 0
    for first, begin, end in zip(states.first, states.starts[:-1], states.starts[1:], strict=True):
        logits = model(torch.from_numpy(states.ids[begin:end])[None]).logits[0].detach()
        for place in range(first, end - begin):
            wanted = torch.softmax(output(states.states[begin + place].float()), -1)
            total, count = total - float((wanted * torch.log_softmax(logits[place], -1)).sum()), count + 1
    assert float(said) == pytest.approx(total / count, rel=1e-4)
    assert all(parameter.grad is not None for parameter in model.parameters())


def test_a_joint_loss_is_the_targets_and_its_heads(tiny_pair: Pair, states: TextStates) -> None:
    asked = MedusaTraining(heads=2, joint=True, positions=1000, heads_weight=0.5, warmup=0.0)
    model, objective = joint_objective(tiny_pair, states, asked)
    some_weights({name: p for name, p in objective.parameters.items() if not name.startswith(TARGET)})
    joint = objective.losses(0)
    heads = medusa_objective(tiny_pair, states, MedusaTraining(heads=2, positions=4 * RUN))
    for name, parameter in heads.parameters.items():
        parameter.data.copy_(objective.parameters[name].data)
    assert float(joint["loss"]) == pytest.approx(float(joint["target"] + 0.5 * joint["heads"]), rel=1e-6)
    # of an untrained copy: its states are those that heads alone learn from, but for the last places of each text
    assert float(joint["heads"]) == pytest.approx(float(heads.losses(0)["loss"]), rel=0.1)
    assert all(p.grad is not None and p.grad.any() for p in model.parameters() if p.requires_grad)
    assert not any(p.grad is not None for p in tiny_pair.target.model.parameters())


@pytest.mark.parametrize("joint", [False, True])
def test_parts_of_a_step_add_up(
    tiny_pair: Pair, states: TextStates, joint: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A step that memory has no room for is the same step, also where a part has no place for the last head."""

    def learnt() -> tuple[dict[str, torch.Tensor], dict[str, torch.Tensor]]:
        if joint:
            objective = joint_objective(tiny_pair, states, MedusaTraining(heads=6, joint=True, positions=1000))[1]
        else:
            asked = DraftTraining(layers=1, positions=1000)
            objective = draft_objective(tiny_pair, new_draft_model(tiny_pair, asked), states, asked)
        losses = objective.losses(0)
        return losses, {name: p.grad.clone() for name, p in objective.parameters.items() if p.grad is not None}

    whole, gradients = learnt()
    monkeypatch.setattr(windows, "NUMBERS", 1)  # a text at a time
    parts, summed = learnt()
    for name, loss in whole.items():
        torch.testing.assert_close(parts[name], loss, rtol=1e-4, atol=1e-5)
    for name, gradient in gradients.items():
        torch.testing.assert_close(summed[name], gradient, rtol=1e-3, atol=1e-5)


def test_of_prompts_only_the_answers_are_learnt(
    tiny_pair: Pair, tiny_pair_folders: PairFolders, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("SPECDRAFT_TRACES", str(tmp_path / "traces"))
    (tmp_path / "p.jsonl").write_text("\n".join(json.dumps({"prompt": f"What is {n}?"}) for n in range(12)))
    words = [f"pair.target.path={tiny_pair_folders.target}", "drafter=ngram", "prompts=jsonl"]
    combination = one_combination("train", [*words, f"prompts.path={tmp_path / 'p.jsonl'}", "max_new_tokens=5"])
    asked = MedusaTraining(held_out=4)
    texts = gather_texts(tiny_pair, combination, asked, True, TraceStore(tmp_path / "own"), UNWATCHED)
    assert (len(texts.learnt), len(texts.held_out)) == (9, 3)
    prompts = [tiny_pair.encode(f"What is {n}?") for n in range(12)]
    assert list(texts.held_out.values()) == prompts[3::4]
    for text in texts.learnt:
        assert text.ids[: text.first + 1] in prompts  # the last token of the prompt is what the answer is said after
        assert 0 < len(text.ids) - text.first - 1 <= 5


def test_some_of_a_text_comes_from_all_of_it_and_documents_are_held_out_whole(tiny_pair: Pair, tmp_path: Path) -> None:
    documents = [f"Document {n} says {n} times {n}. " * 20 for n in range(40)]
    (path := tmp_path / "text.jsonl").write_text("\n".join(json.dumps({"text": text}) for text in documents))
    combination = one_combination("train", [f"pair.target.path={tiny_pair.files.target.spec.path}", "drafter=ngram"])

    def numbers(**changes: Any) -> tuple[set[int], set[int]]:
        asked = MedusaTraining(text=str(path), window=48, held_out=5, beginning=8, **changes)
        texts = gather_texts(tiny_pair, combination, asked, False, TraceStore(tmp_path / "own"), UNWATCHED)
        whole = dict(enumerate(tiny_pair.encode(text) for text in documents))

        def of(ids: list[int]) -> int:
            return next(n for n, text in whole.items() for at in range(len(text)) if text[at : at + len(ids)] == ids)

        assert sum(len(text.ids) for text in texts.learnt) <= (asked.tokens or 10**9)
        return {of(text.ids) for text in texts.learnt}, {of(ids) for ids in texts.held_out.values()}

    learnt, held_out = numbers()
    assert (len(learnt), len(held_out)) == (32, 8) and not learnt & held_out
    some, tried = numbers(tokens=6000)
    assert 5 < len(some | tried) < 20 and not some & tried and max(some) > 30 and min(some) < 10


def test_each_has_a_turn_before_any_has_a_second() -> None:
    turns = shuffled(5, np.arange(15), 1).reshape(3, 5)
    assert [sorted(row) for row in turns.tolist()] == [[0, 1, 2, 3, 4]] * 3
    assert turns[0].tolist() != turns[1].tolist()
    assert shuffled(5, np.arange(7, 9), 1).tolist() == turns.ravel()[7:9].tolist()


class TestMedusa:
    def test_what_is_written_drafts(self, run: Run, base: list[str], tmp_path: Path) -> None:
        out = tmp_path / "heads"
        said = run(
            "train", "medusa", *base, "train.heads=2", "train.continued=4", "train.lr=0.01", "--out", out, "--json"
        )
        assert said.code == 0, said.err
        told = json.loads(said.out)
        assert {path.name for path in out.iterdir()} == {HEADS, "config.json", CARD, LOG}
        tensors = load_file(out / HEADS)
        assert {str(tensor.dtype) for tensor in tensors.values()} == {"torch.bfloat16"}
        assert sorted(tensors) == [f"{head}.0.linear.{part}" for head in (0, 1) for part in ("bias", "weight")]
        log = pd.read_csv(out / LOG)
        assert log["step"].tolist() == [12]
        assert [told["steps"] if "steps" in told else told["trained"][0]["step"]] == [12]
        assert 1 <= told["held_out"]["block_efficiency"] <= 3
        assert len(told["held_out"]["by_depth"]) == 2
        assert "1 texts" not in (out / CARD).read_text() and "train.heads=2" in (out / CARD).read_text()
        words = [
            "drafter=medusa",
            f"drafter.path={out}",
            "drafter.heads=2",
            "tree=chain",
            "budget=2",
            "max_new_tokens=8",
        ]
        drafted = run("generate", "nine green", base[0], *words, "--json")
        assert drafted.code == 0, drafted.err

    def test_goes_on_after_a_kill(self, base: list[str], tmp_path: Path) -> None:
        whole = train_medusa(base, tmp_path / "whole", None, False, UNWATCHED)
        with pytest.raises(KeyboardInterrupt):
            train_medusa(base, tmp_path / "killed", None, False, Stop(6))
        assert {path.name for path in (tmp_path / "killed").iterdir()} == {WORK}
        steps = Stop(8)  # of the 12, four were kept
        gone_on = train_medusa(base, tmp_path / "killed", None, False, steps)
        assert gone_on.trained.log[-1]["loss"] == whole.trained.log[-1]["loss"]
        one, other = (load_file(tmp_path / name / HEADS) for name in ("whole", "killed"))
        assert all(torch.equal(one[name], other[name]) for name in one)

    def test_another_training_is_not_gone_on_with(self, run: Run, base: list[str], tmp_path: Path) -> None:
        out = tmp_path / "out"
        with pytest.raises(KeyboardInterrupt):
            train_medusa(base, out, None, False, Stop(6))
        said = run("train", "medusa", *base, "train.lr=0.5", "--out", out)
        assert (said.code, said.out) == (USAGE, "")
        assert "is of another training (settings, texts or weights); --fresh starts over" in said.err
        assert run("train", "medusa", *base, "train.lr=0.5", "--out", out, "--fresh").code == 0
        assert "target" not in os.listdir(out)
        again = run("train", "medusa", *base, "--out", out)
        assert (again.code, "is trained already" in again.err) == (USAGE, True)

    def test_another_text_is_not_gone_on_with(self, run: Run, base: list[str], tmp_path: Path) -> None:
        out, path = tmp_path / "out", tmp_path / "text.txt"
        path.write_text(TEXT)
        mine = [*base, f"train.text={path}"]
        with pytest.raises(KeyboardInterrupt):
            train_medusa(mine, out, None, False, Stop(6))
        path.write_text(TEXT.replace("green", "brown"))  # as many tokens
        said = run("train", "medusa", *mine, "--out", out)
        assert (said.code, "is of another training" in said.err) == (USAGE, True)
        path.write_text(TEXT)
        assert run("train", "medusa", *mine, "--out", out).code == 0  # nothing of it was overwritten

    def test_states_that_were_cut_short_are_read_anew(
        self, tiny_pair: Pair, states: TextStates, tmp_path: Path
    ) -> None:
        texts, expected = texts_of(states), states.states.clone()
        for damage in (lambda path: path.write_bytes(b"short"), Path.unlink):
            damage(tmp_path / "states.bin")
            assert torch.equal(text_states(tiny_pair, texts, tmp_path, UNWATCHED).states, expected)

    def test_starting_over_as_another_kind(self, run: Run, base: list[str], tmp_path: Path) -> None:
        out = tmp_path / "out"
        train_draft([*base, "train.steps=2"], out, None, False, UNWATCHED)
        (out / "notes.txt").write_text("mine")
        said = run("train", "medusa", *base, "train.steps=2", "--out", out, "--fresh")
        assert said.code == 0, said.err
        assert {path.name for path in out.iterdir()} == {HEADS, "config.json", CARD, LOG, "notes.txt"}
        other = tmp_path / "other"
        other.mkdir()
        (other / "README.md").write_text("mine")
        said = run("train", "medusa", *base, "--out", other, "--fresh")
        assert (said.code, (other / "README.md").read_text()) == (USAGE, "mine")

    def test_prompts_and_their_answers(
        self, run: Run, base: list[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setenv("SPECDRAFT_TRACES", str(tmp_path / "traces"))
        rows = [json.dumps({"prompt": f"What is {n} and {n}?"}) for n in range(16)]
        (tmp_path / "prompts.jsonl").write_text("\n".join(rows))
        prompts = ["prompts=jsonl", f"prompts.path={tmp_path / 'prompts.jsonl'}", "max_new_tokens=12"]
        said = run("train", "medusa", base[0], *SMALL, *prompts, "--out", tmp_path / "out", "--json")
        assert said.code == 0, said.err
        told = json.loads(said.out)
        assert told["source"] == "14 prompts (prompts.jsonl) with the target's answers"
        assert told["held_out"]["texts"] == 2

    def test_joint(self, run: Run, base: list[str], tmp_path: Path) -> None:
        out = tmp_path / "out"
        made = train_medusa([*base, "train.joint=true", "train.heads=2"], out, None, False, UNWATCHED)
        assert {path.name for path in out.iterdir()} == {HEADS, "config.json", CARD, LOG, "target"}
        assert set(made.trained.log[0]) == {"step", "loss", "target", "heads", "seconds"}
        words = [f"pair.target.path={out / 'target'}", "drafter=medusa", f"drafter.path={out}", "drafter.heads=2"]
        drafted = run("generate", "nine green", *words, "tree=chain", "budget=2", "max_new_tokens=8", "--json")
        assert drafted.code == 0, drafted.err
        alone = run(
            "generate", "nine green", base[0], *words[1:], "tree=chain", "budget=2", "max_new_tokens=8", "--json"
        )
        assert alone.code == 0, alone.err
        before, after = (
            load_file(folder / "model.safetensors")["lm_head.weight"]
            for folder in (Path(base[0].partition("=")[2]), out / "target")
        )
        assert not torch.equal(before.bfloat16(), after)


def test_a_draft_model_drafts(run: Run, base: list[str], tmp_path: Path) -> None:
    out = tmp_path / "draft"
    made = train_draft([*base, "train.layers=1", "train.width=16"], out, None, False, UNWATCHED)
    assert made.held_out.depth == 8
    assert json.loads((out / "config.json").read_text())["hidden_size"] == 16
    words = [base[0], f"pair.draft.path={out}", "tree=chain", "budget=2", "max_new_tokens=8"]
    drafted = run("generate", "nine green", *words, "--json")
    assert drafted.code == 0, drafted.err


@pytest.mark.parametrize(
    ("kind", "words", "said"),
    [
        ("medusa", ["train.heads=0"], "train.heads=0 is out of range; expected 1 or more"),
        ("medusa", ["train.stepps=3"], "did you mean"),
        ("medusa", ["train.labels=truth"], "train.labels=truth is not known"),
        ("medusa", ["train.lr=0"], "train.lr=0"),
        ("medusa", ["train.seed=-1"], "train.seed=-1 is out of range"),
        ("medusa", ["train.window=600"], "train.window=600 is more than the target's context of 512"),
        ("draft", ["train.width=12"], "3 numbers of a head; expected an even number"),
        ("medusa", ["tree=chain"], "tree=chain has no effect in train medusa"),
        ("medusa", ["train.text=nowhere.txt"], "train.text=nowhere.txt: No such file or directory; expected a file or"),
        ("medusa", ["train.joint=true", "train.labels=text"], "leave train.labels=text and train.candidates out"),
        ("draft", ["train.width=13"], "train.width=13 is no multiple of 4 attention heads"),
        ("draft", ["train.heads=3"], "train.heads"),
    ],
)
def test_bad_input(run: Run, base: list[str], tmp_path: Path, kind: str, words: list[str], said: str) -> None:
    told = run("train", kind, *base, *words, "--out", tmp_path / "out")
    assert (told.code, told.out) == (USAGE, "")
    assert said in told.err and "Traceback" not in told.err
    assert not (tmp_path / "out").exists()


def test_two_do_not_write_one_folder(run: Run, base: list[str], tmp_path: Path) -> None:
    out = tmp_path / "out"
    with locked(out, "training"):
        told = run("train", "medusa", *base, "--out", out)
    assert told.code == USAGE and f"{out}: another training is writing here" in told.err
    assert list(out.iterdir()) == []


def test_too_little_to_learn_from(run: Run, base: list[str], tmp_path: Path) -> None:
    short, empty = tmp_path / "short.txt", tmp_path / "empty.txt"
    short.write_text("Only a few words.")
    empty.write_text("")
    for path, count in ((short, 1), (empty, 0)):
        told = run("train", "medusa", *base, f"train.text={path}", "--out", tmp_path / "out")
        assert told.code == USAGE
        assert f"train.text={path}: {count} windows of 48 tokens are too few to learn from" in told.err
    told = run("train", "medusa", base[0], "--out", tmp_path / "out")
    assert told.code == USAGE
    assert "nothing to learn from is named" in told.err


def test_a_model_of_the_last_tokens_drafts(run: Run, base: list[str], tmp_path: Path) -> None:
    out = tmp_path / "nano"
    said = run("train", "nano", *base, "train.span=3", "train.width=8", "train.inner=16", "train.lr=0.01", "--out", out)
    assert said.code == 0, said.err
    assert "tokens a step" in said.out
    words = [base[0], "drafter=nano", f"drafter.path={out}", "tree=kary", "budget=4", "max_new_tokens=8"]
    drafted = run("generate", "nine green", *words, "--json")
    assert drafted.code == 0, drafted.err
