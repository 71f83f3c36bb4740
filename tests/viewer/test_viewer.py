from __future__ import annotations

import json
import re
from dataclasses import replace
from io import StringIO
from math import exp, log, prod
from pathlib import Path
from typing import Any

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from rich.cells import cell_len
from rich.console import Console
from support.command_line import Run, one_line
from support.tiny_models import VOCAB, PairFolders, tiny_llama
from support.viewing import NASTY, TREE, Nasty, data_of, nasty_step

from specdraft.acceptance import (
    AcceptanceRule,
    Block,
    Greedy,
    KSeq,
    Membership,
    NoReplacement,
    Recursive,
    TopK,
    Traversal,
    Typical,
)
from specdraft.commands.options import DONE
from specdraft.drafters.loaded.model import ModelDrafter
from specdraft.drafters.pair import Pair
from specdraft.errors import ConfigError, ResultsError, plain_text
from specdraft.models.cached_model import CachedModel
from specdraft.sampling.distribution import Sampling
from specdraft.study.combination import Combination
from specdraft.study.generate import SpeculativeDecoder
from specdraft.study.plan import one_combination
from specdraft.traces.store import TraceStore
from specdraft.trees.shapes import Shape
from specdraft.trees.shapes.best_first import BestFirst
from specdraft.trees.shapes.chain import Chain
from specdraft.trees.shapes.kary import Kary
from specdraft.trees.shapes.paths import Paths
from specdraft.trees.states import judged_by_tokens
from specdraft.trees.tokens import token_text
from specdraft.viewer.live import LiveShowing, by_wish
from specdraft.viewer.page import page
from specdraft.viewer.phases import captions, tokens_per_pass
from specdraft.viewer.replayed import ReplayedShowing, recorded
from specdraft.viewer.steps import ShownStep
from specdraft.viewer.terminal import StepPrinter, totals_text

PROMPT = "Once upon a time"


def combination(overrides: list[str]) -> Combination:
    return one_combination("test", overrides)


def watch(
    pair: Pair,
    shape: Shape,
    budget: int,
    rule: AcceptanceRule | None = None,
    sampling: Sampling | None = None,
    seed: int = 3,
) -> Any:
    decoder = SpeculativeDecoder(pair, shape, budget, 12, rule, sampling, watched=True, seed=seed)
    showing = LiveShowing(decoder, combination([]), "Once", pair.encode(PROMPT))
    return decoder, showing, list(showing.steps())


@torch.inference_mode()
def after(model: Any, tokens: list[int]) -> torch.Tensor:
    """The obvious way to the probabilities after some tokens."""
    return torch.softmax(model.model(torch.tensor([tokens])).logits[0, -1], -1)


class TestLive:
    @pytest.mark.parametrize("shape", [Chain(), Kary(), BestFirst()])
    def test_probabilities(self, tiny_pair: Pair, shape: Shape) -> None:
        decoder, showing, steps = watch(tiny_pair, shape, 5)
        prefix = tiny_pair.encode(PROMPT)
        for step in steps:
            paths: list[list[int]] = [[step.nodes[0].token]]
            for node in range(1, len(step.nodes)):
                before, seen = paths[int(step.topology.parents[node])], step.nodes[node]
                assert seen.draft_prob == pytest.approx(
                    float(after(tiny_pair.drafter.model, prefix + before)[seen.token]), abs=1e-4
                )
                assert seen.target_prob == pytest.approx(
                    float(after(tiny_pair.target, prefix + before)[seen.token]), abs=1e-4
                )
                paths.append([*before, seen.token])
            prefix += [step.nodes[0].token, *step.tokens[:-1]]
        assert showing.text() == showing.result().text
        assert showing.result().token_ids == decoder.generate(tiny_pair.encode(PROMPT)).token_ids

    @pytest.mark.parametrize(
        "rule",
        [Recursive(), NoReplacement(), KSeq(), Membership(), TopK(), Traversal(), Typical()],
        ids=lambda rule: rule.kind,
    )
    def test_sampling(self, tiny_pair: Pair, rule: AcceptanceRule) -> None:
        sampling = Sampling(temperature=1.0)
        tiny_pair = replace(
            tiny_pair, drafter=ModelDrafter(CachedModel(tiny_llama(7), VOCAB))
        )  # it is wrong more often
        decoder, showing, steps = watch(tiny_pair, Kary(k=3), 9, rule, sampling)
        again = decoder.generate(tiny_pair.encode(PROMPT))
        assert [step.accepted for step in steps] == [
            step.accepted for step in again.steps
        ]  # looking on changes nothing
        assert again.token_ids == showing.result().token_ids
        assert decoder.generate(PROMPT).token_ids == again.token_ids
        for step, decoded in zip(steps, again.steps, strict=True):
            assert {node for node, seen in enumerate(step.nodes) if seen.state == "accepted"} == set(step.accepted)
            assert {n for n, seen in enumerate(step.nodes) if seen.accept_prob is not None} == {
                trial.node for trial in decoded.tried
            }
            assert step.why
            last = step.accepted[-1] if step.accepted else 0
            if step.bonus is not None:
                assert all(step.nodes[child].state == "rejected" for child in step.topology.children[last])
            if rule.kind == "recursive" and step.topology.children[0]:
                first = step.nodes[step.topology.children[0][0]]
                assert first.accept_prob == pytest.approx(min(1.0, first.target_prob / first.draft_prob))
        wanted = "no child passes" if rule.kind == "typical" else "flip said no"
        assert any(wanted in step.why for step in steps)

    def test_a_chain_from_its_end(self, tiny_pair: Pair) -> None:
        _, _, steps = watch(tiny_pair, Chain(), 4, Block(), Sampling(temperature=1.5))
        whole = [step for step in steps if step.bonus is not None]  # the end of the text cuts off what was accepted
        assert all(seen.accept_prob is not None for step in whole for seen in step.nodes[len(step.accepted) + 1 :])
        assert len(whole) >= len(steps) - 1 and any(len(step.accepted) < 4 for step in whole)

    def test_seed(self, tiny_pair: Pair) -> None:
        texts = [
            watch(tiny_pair, Kary(), 4, Recursive(), Sampling(temperature=1.0), seed)[1].text() for seed in (0, 0, 1)
        ]
        assert texts[0] == texts[1] != texts[2]

    @pytest.mark.parametrize(
        ("shape", "rule", "sampling", "words"),
        [
            (
                Kary(),
                Greedy(),
                Sampling(temperature=1),
                ["the rule greedy needs sampling.temperature=0; rules that fit: kseq, "],
            ),
            (Kary(), Block(), Sampling(temperature=1), ["the rule block is for chains only"]),
            (
                BestFirst(),
                Recursive(),
                Sampling(temperature=1),
                ["needs children drawn at random; rules that fit: topk, typical"],
            ),
            (Paths(paths=[[1]]), Recursive(), Sampling(temperature=1), ["skips child ranks"]),
            (Chain(), Typical(epsilon=2), Sampling(temperature=1), ["acceptance.epsilon=2"]),
            (Paths(paths=[[999]]), Greedy(), Sampling(), ["the vocabulary has 258 tokens"]),
        ],
    )
    def test_misfit(
        self, tiny_pair: Pair, shape: Shape, rule: AcceptanceRule, sampling: Sampling, words: list[str]
    ) -> None:
        with pytest.raises(ConfigError) as caught:
            SpeculativeDecoder(tiny_pair, shape, 4, acceptance=rule, sampling=sampling)
        assert all(word in str(caught.value) for word in words)

    def test_greedy_why(self, tiny_pair: Pair) -> None:
        _, _, steps = watch(tiny_pair, Kary(), 3)
        stopped = [step for step in steps if step.bonus is not None and len(step.accepted) < step.topology.depth]
        assert stopped
        for step in stopped:
            assert re.search(
                r"the target wanted .* \(p=0\.\d{3}\); the draft's best child .* is the target's rank [1-9]", step.why
            )


class TestReplay:
    @pytest.fixture
    def overrides(self, tiny_pair_folders: PairFolders, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> list[str]:
        monkeypatch.setenv("SPECDRAFT_TRACES", str(tmp_path / "traces"))
        (tmp_path / "p.jsonl").write_text(
            '{"question_id": "first", "prompt": "Once upon a time"}\n{"question_id": "second", "prompt": "def f"}\n'
        )
        models = [f"pair.target.path={tiny_pair_folders.target}", f"pair.draft.path={tiny_pair_folders.draft}"]
        return [*models, "prompts=jsonl", f"prompts.path={tmp_path / 'p.jsonl'}", "max_new_tokens=16"]

    @pytest.mark.parametrize(
        "tree",
        [
            ["tree=chain", "budget=4"],
            ["tree=kary", "budget=7", "tree.k=3"],
            ["tree=paths", "tree.paths=[[1],[1,0],[1,0,20],[0],[1,0,20,0]]"],
            ["tree=best_first", "budget=9", "tree.min_prob=0.001"],
        ],
    )
    def test_equals_live(self, overrides: list[str], tmp_path: Path, tree: list[str]) -> None:
        one = combination([*overrides, *tree])
        replayed = ReplayedShowing(with_models := recorded(one, "first", TraceStore(tmp_path / "traces"), True))
        steps = list(replayed.steps())
        assert with_models.pair is not None
        decoder = SpeculativeDecoder(with_models.pair, one.shape, one.settings.budget, 16, watched=True)
        live = list(LiveShowing(decoder, one, "", with_models.prompt_ids).steps())
        assert_same(steps, live)
        at = 0
        for step in steps:
            at += len(step.accepted) + 1
            if told := re.search(r"the drafter's rank (\d+)", step.why):
                assert int(told[1]) == with_models.annotation.ranks[at]
        assert tree[0] == "tree=best_first" or any("the drafter's rank" in step.why for step in steps)
        assert replayed.result().tally.steps == len(live)
        counted = decoder.generate(with_models.prompt_ids)
        assert replayed.result().token_ids == counted.token_ids
        assert replayed.result().acceptance_rate == counted.acceptance_rate

        bare = ReplayedShowing(recorded(one, "first", TraceStore(tmp_path / "traces"), False))
        known = list(bare.steps())
        for step, full in zip(known, steps, strict=True):
            assert (step.accepted, step.bonus, step.bonus_prob) == (full.accepted, full.bonus, None)
            trunk = {0, *full.accepted}
            for node, (seen, other) in enumerate(zip(step.nodes, full.nodes, strict=True)):
                assert seen.state == other.state
                assert seen.target_prob is None
                assert seen.token in (None, other.token)
                if (
                    one.plan.dynamic
                    or node == 0
                    or (int(step.topology.parents[node]) in trunk and step.topology.ranks[node] < 16)
                ):
                    beyond = step.bonus is None and int(step.topology.parents[node]) == (full.accepted or [0])[-1]
                    assert (seen.token == other.token) or beyond
                elif node not in full.accepted:
                    assert seen.token is None
        assert tree[0] in ("tree=chain", "tree=best_first") or any(
            seen.token is None for step in known for seen in step.nodes
        )
        assert "|?" in printed(bare, 80)

    def test_a_smaller_tree_without_models(self, overrides: list[str], tmp_path: Path) -> None:
        store = TraceStore(tmp_path / "traces")
        recorded(combination([*overrides, "tree=best_first", "budget=9"]), "first", store, True)
        small = combination([*overrides, "tree=best_first", "budget=4"])
        without = list(ReplayedShowing(recorded(small, "first", store, False)).steps())
        assert_same(without, list(ReplayedShowing(recorded(small, "first", store, True)).steps()), target=False)

    def test_a_node_exactly_at_the_threshold_is_shown(self, overrides: list[str], tmp_path: Path) -> None:
        tree, store = [*overrides, "tree=best_first", "budget=9"], TraceStore(tmp_path / "traces")
        whole = recorded(combination(tree), "first", store, True)
        assert whole.expansion is not None
        value = next(float(v) for v in whole.expansion.log_prob[0] if v < 0 and log(exp(v)) == v)
        kept = (whole.expansion.log_prob[0] >= value).sum()
        at = recorded(combination([*tree, f"tree.min_prob={exp(value)!r}"]), "first", store, False)
        assert next(ReplayedShowing(at).steps()).topology.num_nodes == kept

    @pytest.mark.parametrize("limit", ["tree.max_depth=2", "tree.max_depth=1", "tree.max_children=2"])
    def test_trees_of_other_limits_are_not_taken(self, overrides: list[str], tmp_path: Path, limit: str) -> None:
        store, wide = TraceStore(tmp_path / "traces"), [*overrides, "tree=best_first", "budget=9", "tree.max_depth=3"]
        narrow = combination([*wide, limit])
        recorded(combination(wide), "first", store, True)
        with pytest.raises(ResultsError, match="nothing is recorded of prompt 'first'"):
            recorded(narrow, "first", store, False)
        steps = list(ReplayedShowing(recorded(narrow, "first", store, True)).steps())
        most = int(limit[-1])
        assert (
            max(step.topology.depth if "depth" in limit else len(step.topology.children[0]) for step in steps) == most
        )
        with pytest.raises(ResultsError, match="nothing is recorded"):
            recorded(combination([*wide, "tree.max_depth=4"]), "first", store, False)

    def test_sampled_topk(self, overrides: list[str], tmp_path: Path) -> None:
        one = combination([*overrides, "tree=kary", "budget=6", "acceptance=topk", "sampling.temperature=1", "seed=4"])
        steps = list(ReplayedShowing(recorded(one, "second", TraceStore(tmp_path / "traces"), True)).steps())
        assert sum(len(step.tokens) for step in steps) <= 15
        assert any("the target drew" in step.why for step in steps)

    def test_command(self, run: Run, overrides: list[str], tmp_path: Path) -> None:
        said = run("replay", "second", *overrides, "tree=kary", "budget=3", "--html", tmp_path / "page.html")
        assert said.code == DONE
        assert said.out.startswith("def f")
        assert "step 1: " in said.out
        assert "\x1b" not in said.out
        assert "page.html: written" in said.err
        assert "second (all)" in (tmp_path / "page.html").read_text()
        found = json.loads(run("replay", "second", *overrides, "tree=kary", "budget=3", "--no-models", "--json").out)
        assert found["new_tokens"] == len(found["token_ids"])
        assert "wall_s" not in found

    def test_two_trees_side_by_side(self, run: Run, overrides: list[str], tmp_path: Path) -> None:
        asked = ["replay", "second", *overrides, "tree=chain,kary", "budget=3"]
        said = run(*asked, "--html", tmp_path / "page.html")
        assert said.code == DONE
        assert "\nchain, 3 nodes\n" in said.out and "\nkary, 3 nodes: " in said.out
        lanes = data_of((tmp_path / "page.html").read_text())["lanes"]
        assert [lane["about"]["tree"] for lane in lanes] == ["chain, 3 nodes", "kary, 3 nodes"]
        found = json.loads(run(*asked, "--json").out)
        assert [one["trees"] for one in found] == [
            [{key: step[key] for key in step.keys() - {"phases", "per_pass"}} for step in lane["steps"]]
            for lane in lanes
        ]
        assert found[0]["token_ids"] == found[1]["token_ids"] and found[0]["steps"] >= found[1]["steps"]

    def test_along_one_text_only(self, run: Run, overrides: list[str], tmp_path: Path) -> None:
        lengths = [*overrides, "max_new_tokens=5,9"]
        said = run("replay", "second", *lengths, "--json", "--html", tmp_path / "page.html")
        assert said.code == 2 and "two trees stand side by side along one text" in said.err and said.out == ""
        assert not (tmp_path / "page.html").exists()

    @pytest.mark.parametrize(
        ("arguments", "words"),
        [
            (["first", "tree=chain,kary", "--svg", "x.svg"], ["write a step of one tree"]),
            (["frist"], ["'frist' is not a prompt id of p.jsonl", "did you mean 'first'?", "2 prompts"]),
            (["first", "tree=measured"], ["fitted to the traces", "trees show NAME --study DIR"]),
            (
                ["first", "acceptance=recursive", "sampling.temperature=1"],
                ["expected values, not trees", "acceptance=topk"],
            ),
            (["first", "sampling.temperature=1"], ["needs sampling.temperature=0; rules that fit"]),
            (["first", "--no-models"], ["nothing is recorded of prompt 'first'"]),
            (["first", "budget=2,3,4"], ["replay shows one combination, or two side by side; the overrides make 3"]),
            (["first", "--html", "/nowhere/x.html"], ["--html /nowhere/x.html: there is no folder /nowhere"]),
            (["first", "--html", "/"], ["this is a folder"]),
            (["first", "--html", "/proc/x.html"], ["--html /proc/x.html: cannot be written"]),
        ],
    )
    def test_bad_input(self, run: Run, overrides: list[str], arguments: list[str], words: list[str]) -> None:
        line = one_line(run("replay", *arguments, *overrides))
        assert all(word in line for word in words), line

    def test_models_that_do_not_load(
        self, overrides: list[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        one, store = combination(overrides), TraceStore(tmp_path / "traces")
        recorded(one, "first", store, True)
        from specdraft.errors import ModelError
        from specdraft.viewer import replayed

        monkeypatch.setattr(replayed, "load_pair", lambda files: (_ for _ in ()).throw(ModelError("out of memory")))
        bare = recorded(one, "first", store, True)
        assert bare.pair is None
        assert "out of memory" in bare.notes[0]


def assert_same(steps: list[ShownStep], others: list[ShownStep], target: bool = True) -> None:
    assert len(steps) == len(others)
    for step, other in zip(steps, others, strict=True):
        assert (step.topology, list(step.accepted), step.bonus) == (other.topology, list(other.accepted), other.bonus)
        assert [seen.token for seen in step.nodes] == [seen.token for seen in other.nodes]
        assert [seen.state for seen in step.nodes] == [seen.state for seen in other.nodes]
        assert [seen.draft_prob for seen in step.nodes] == pytest.approx(
            [seen.draft_prob for seen in other.nodes], abs=1e-4
        )
        if target:
            assert [seen.target_prob for seen in step.nodes[1:]] == pytest.approx(
                [s.target_prob for s in other.nodes[1:]], abs=1e-4
            )


def printed(showing: Any, width: int, live: bool = False, terminal: bool = False) -> str:
    console = Console(
        width=width, file=(file := StringIO()), force_terminal=terminal, color_system="standard" if terminal else None
    )
    with StepPrinter(console, showing, live) as printer:
        for step in showing.steps():
            printer.step(step)
    return file.getvalue()


class TestTerminal:
    @pytest.mark.parametrize("width", [30, 40, 80, 200])
    def test_width(self, width: int) -> None:
        lines = printed(Nasty(), width).split("\n")
        steps = lines[next(i for i, line in enumerate(lines) if line.startswith("step 1")) :]
        assert max(map(cell_len, steps)) <= width
        assert "?" in "".join(steps)

    def test_pipe(self) -> None:
        text = printed(Nasty(), 80)
        assert not [letter for letter in text if not letter.isprintable() and letter not in "\n\t"]

    def test_live(self) -> None:
        text = printed(Nasty(), 60, live=True, terminal=True)
        assert "tokens per pass" in text
        assert "\x1b[31m\x07" not in text
        assert "tokens per step" not in printed(Nasty(), 60, live=False, terminal=True)

    @given(st.text(), st.integers(2, 30))
    def test_token_text(self, token: str, longest: int) -> None:
        shown = token_text(token, longest)
        assert cell_len(shown) <= max(longest, 2)
        assert plain_text(shown) == shown
        assert "\n" not in shown

    def test_totals(self, tiny_pair: Pair) -> None:
        _, showing, _ = watch(tiny_pair, Kary(), 3)
        console = Console(width=80, file=StringIO())
        with console.capture() as said:
            console.print(totals_text(showing.shown(), showing.result()))
        text, counted = said.get(), showing.result().tally
        assert "acceptance rate 0." in text
        parts = f"1 from the prompt + {counted.accepted_tokens} accepted + {counted.bonus_tokens} bonus"
        assert f"{counted.new_tokens} tokens = {parts}, {counted.steps} steps" in text


class TestFirstChoices:
    def test_greedy_accepts_just_the_targets_first_choices(self, tiny_pair: Pair) -> None:
        _, _, steps = watch(tiny_pair, Kary(k=3), 7)
        for step in steps:
            tried = [child for node in [0, *step.accepted] for child in step.topology.children[node]]
            for node in tried if step.bonus is not None else []:
                assert step.nodes[node].target_first is (node in step.accepted)
            assert step.nodes[0].target_first is None
        assert any(seen.target_first and seen.state == "unused" for step in steps for seen in step.nodes)

    def test_replayed_says_the_same(self, run: Run, tiny_pair_folders: PairFolders, tmp_path: Path) -> None:
        (tmp_path / "p.jsonl").write_text(json.dumps({"question_id": "a", "prompt": PROMPT}) + "\n")
        given = [f"pair.target.path={tiny_pair_folders.target}", f"pair.draft.path={tiny_pair_folders.draft}"]
        given += ["tree=kary", "budget=7", "max_new_tokens=16", "--json"]
        live = json.loads(run("generate", PROMPT, *given).out)
        replayed = json.loads(run("replay", "a", *given, "prompts=jsonl", f"prompts.path={tmp_path / 'p.jsonl'}").out)
        told = [[[node["target_first"] for node in tree["nodes"]] for tree in one["trees"]] for one in (live, replayed)]
        assert told[0] == told[1] and any(map(any, told[0]))


class TestPage:
    def test_holds_the_steps(self, tiny_pair: Pair) -> None:
        _, showing, steps = watch(tiny_pair, Kary(k=3), 7)
        (found,) = data_of(page(showing.shown()))["lanes"]
        assert [step.pop("per_pass") for step in found["steps"]] == tokens_per_pass(steps)
        assert [step.pop("phases") for step in found["steps"]] == [captions(step, showing.word) for step in steps]
        assert found == json.loads(json.dumps(showing.shown().as_data()))
        for step, shown in zip(steps, found["steps"], strict=True):
            assert [(node["token"], node["state"]) for node in shown["nodes"]] == [
                (seen.token, seen.state) for seen in step.nodes
            ]
            assert [node["draft_prob"] for node in shown["nodes"]] == [seen.draft_prob for seen in step.nodes]
            assert [node["target_prob"] for node in shown["nodes"]] == [seen.target_prob for seen in step.nodes]
            assert shown["best"] == [n for n, path in enumerate(step.topology.paths) if n and not any(path)]
            assert [node["path"] for node in shown["nodes"]] == [list(path) for path in step.topology.paths]
            for n, node in enumerate(shown["nodes"]):
                along = prod(step.nodes[above].draft_prob for above in step.topology.path_to(n))
                assert exp(node["cumulative_log_prob"]) == pytest.approx(along)

    def test_nothing_gets_out(self) -> None:
        shown = Nasty().shown()
        text = page(shown)
        assert text.count("<script") == 2 == text.count("</script>")
        assert "<b>" not in text and "<i>" not in text
        assert re.findall(r"https?://[^\"']*", text) == ["http://www.w3.org/2000/svg"]
        assert data_of(text)["lanes"][0]["words"]["0"]["text"] == NASTY[0]
        assert "\u202e" not in text
        assert "49" not in data_of(text)["lanes"][0]["words"]["9"]["shown"]

    def test_layout(self) -> None:
        nodes = data_of(page(Nasty().shown()))["lanes"][0]["steps"][0]["nodes"]
        places = {(node["x"], node["y"]) for node in nodes}
        assert len(places) == len(nodes)
        leaves = [node["y"] for index, node in enumerate(nodes) if index not in {other["parent"] for other in nodes}]
        assert sorted(leaves) == list(range(len(leaves)))

    def test_unknown_has_no_best_path(self) -> None:
        assert nasty_step(unknown=True).best_path == []


class TestStates:
    def test_what_lies_beyond_the_end_was_not_tried(self) -> None:
        """`TREE`: 1, 2, 3 below the root; 4, 5 below 1; 6, 7 below 4."""
        states = judged_by_tokens(TREE, [1], cut=True)
        assert states == ["root", "accepted", "rejected", "rejected", "unused", "unused", "unused", "unused"]
        states = judged_by_tokens(TREE, [1], cut=False)
        assert states[4:] == ["rejected", "rejected", "unused", "unused"]
        assert judged_by_tokens(TREE, [], cut=False)[1:4] == ["rejected"] * 3

    def test_nor_where_coins_were_flipped(self, tiny_pair: Pair) -> None:
        pair = replace(tiny_pair, drafter=ModelDrafter(CachedModel(tiny_llama(7), VOCAB)))
        one, beyond = combination([]), 0
        for rule, shape in ((Recursive(), Kary(k=3)), (Traversal(), Kary(k=3)), (Block(), Chain())):
            for limit in (2, 3, 5):
                decoder = SpeculativeDecoder(pair, shape, 9, limit, rule, Sampling(temperature=1.5), watched=True)
                for step in LiveShowing(decoder, one, "Once", pair.encode(PROMPT)).steps():
                    late = [node for node, depth in enumerate(step.topology.depths) if depth > len(step.accepted)]
                    if step.bonus is None:
                        assert {step.nodes[node].state for node in late} <= {"unused"}
                        beyond += sum(step.nodes[node].accept_prob is not None for node in late)
        assert beyond  # some coins were flipped for what the end then left out


def test_a_rank_counts_the_tokens_before() -> None:
    probs = torch.tensor([0.2, 0.5, 0.3])
    for child, rank in ((1, 0), (2, 1), (0, 2)):
        assert f"is the target's rank {rank} (p={float(probs[child]):.3f})" in by_wish(str, "wanted", 1, probs, child)


def test_generate_under_sampling(run: Run, tiny_pair_folders: PairFolders, tmp_path: Path) -> None:
    pair = [
        f"pair.target.path={tiny_pair_folders.target}",
        f"pair.draft.path={tiny_pair_folders.draft}",
        "max_new_tokens=8",
    ]
    sampled = ["sampling.temperature=1", "acceptance=recursive", "seed=3", "tree=kary", "budget=4"]
    texts = [json.loads(run("generate", "Once", *pair, *sampled, "--json").out)["text"] for _ in range(2)]
    assert texts[0] == texts[1]
    said = run("generate", "Once", *pair, *sampled, "--no-live", "--html", tmp_path / "g.html")
    assert said.code == DONE
    assert "after temperature, top-k and top-p" in said.out
    assert data_of((tmp_path / "g.html").read_text())["about"]["seed"] == "3"
    wrong = [*pair, "tree=kary", "budget=4", "sampling.temperature=1"]
    assert "needs sampling.temperature=0; rules that fit: " in one_line(run("generate", "Once", *wrong))
    assert "--html /nowhere/x" in one_line(run("generate", "Once", *pair, "--html", "/nowhere/x"))


def test_a_fitted_tree_is_fitted_on_the_prompts_that_were_chosen(
    run: Run, tiny_pair_folders: PairFolders, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("SPECDRAFT_TRACES", str(tmp_path / "traces"))
    pair = [f"pair.target.path={tiny_pair_folders.target}", f"pair.draft.path={tiny_pair_folders.draft}"]
    chosen = [*pair, "max_new_tokens=8", "budget=4", "max_prompt_tokens=99", "prompts.limit=3"]
    fitted = run("generate", "Once", *chosen, "tree=measured", "--json")
    assert fitted.code == DONE, fitted.err
    without = [text for text in chosen if text != "prompts.limit=3"]
    said, plain = json.loads(fitted.out), json.loads(run("generate", "Once", *without, "tree=chain", "--json").out)
    assert said["text"] == plain["text"]  # greedy: another tree gives the same text in other steps
    assert said["acceptance_rate"] == said["acceptance_length"] / 4
    listed = json.loads(run("traces", "list", "--json").out)
    assert sum(trace["about"]["kind"] == "trajectory" for trace in listed) == 3
