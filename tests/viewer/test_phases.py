from __future__ import annotations

from dataclasses import replace

from support.viewing import TREE, Nasty, nasty_step

from specdraft.trees.states import judged_by_tokens
from specdraft.trees.topology import Topology
from specdraft.viewer.phases import captions, tokens_per_pass
from specdraft.viewer.steps import Seen, ShownStep


def word(token: int) -> str:
    return " abcdefghij"[token]


def step(first: bool | None = None) -> ShownStep:
    states = judged_by_tokens(TREE, [1, 4], False)
    nodes = [
        Seen(node, states[node], 1 / (node + 1), 0.5, first if node != 4 else first is not None) for node in range(8)
    ]
    return ShownStep(TREE, nodes, [1, 4], 9, 0.25, "why")


def test_four_sentences() -> None:
    assert captions(step(first=False), word) == {
        "draft": "the drafter proposes 7 tokens on 3 levels after \u201c\u00b7\u201d; "
        "its first choice \u2605 is \u201ca\u201d \u201cd\u201d \u201cf\u201d",
        "verify": "the target reads all 7 in one pass; 1 of them is its own first choice there \u25ce",
        "accept": "2 of 3 levels accepted: \u201ca\u201d \u201cd\u201d; why",
        "bonus": "the target's own next token \u201ci\u201d (p=0.250); this pass yields 3 tokens",
    }
    assert "7 of them are its own" in captions(step(first=True), word)["verify"]


def test_what_is_unknown_is_left_out() -> None:
    said = captions(nasty_step(unknown=True), Nasty().word)
    assert "first choice" not in said["draft"] + said["verify"]
    assert "first choice" not in captions(step(), word)["verify"]


def test_without_a_bonus_or_a_proposal() -> None:
    assert captions(replace(step(), bonus=None), word)["bonus"] == "none, the text ends; this pass yields 2 tokens"
    alone = ShownStep(Topology([-1]), [Seen(1, "root")], [], 2, None, "why")
    said = captions(alone, word)
    assert (
        said["draft"].startswith("the drafter proposes nothing") and said["verify"] == "the target reads on in one pass"
    )
    assert said["bonus"] == "the target's own next token \u201cb\u201d; this pass yields 1 token"


def test_tokens_per_pass_so_far() -> None:
    one = replace(step(), accepted=[])
    assert tokens_per_pass([step(), one, replace(step(), bonus=None)]) == [3.0, 2.0, 2.0]
    assert tokens_per_pass([]) == []
