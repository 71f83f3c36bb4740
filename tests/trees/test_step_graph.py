from __future__ import annotations

import re
import sys
from base64 import b64decode
from xml.etree import ElementTree

import pytest
import torch
from support.viewing import NASTY, TREE, Nasty, nasty_step

from specdraft.errors import ConfigError
from specdraft.trees.draft_tree import DraftTree
from specdraft.trees.states import judged_by_tokens
from specdraft.trees.step import Step, Trial
from specdraft.trees.step_graph import StepGraph
from specdraft.trees.step_picture import PHASES, drawn, step_svg
from specdraft.trees.tokens import token_text

SVG = "{http://www.w3.org/2000/svg}"
LABEL = re.compile(r'^  (\w+) \[label="((?:[^"\\]|\\.)*)", (.*)\];$')


def nasty_graph() -> StepGraph:
    return nasty_step().graph(Nasty().word)


def made_step(watched: bool = True) -> Step:
    """`TREE` with token n at node n; the target wants 1, then 4, then 6, then 9, and 5 everywhere else."""
    logits = torch.zeros(len(TREE), 12)
    logits[:, 5] = 1.0
    for node, wanted in ((0, 1), (1, 4), (4, 9)):
        logits[node, wanted] = 3.0
    tree = DraftTree(TREE, list(range(8)), [1.0, 0.5, 0.3, 0.1, 0.2, 0.4, 0.3, 0.2])
    return Step(tree, [1, 4], [1, 4, 9], False, logits=logits if watched else None, word=Nasty().word)


class TestStep:
    def test_says_what_the_target_thinks(self) -> None:
        graph = made_step().graph
        assert [node.target_first for node in graph.nodes] == [None, True, False, False, True, False, False, False]
        probs = made_step().logits.softmax(-1)  # type: ignore[union-attr]
        assert [node.target_prob for node in graph.nodes[1:]] == pytest.approx(
            [float(probs[parent, node]) for node, parent in enumerate(TREE.parents.tolist()) if node]
        )
        assert graph.bonus is not None
        assert (graph.bonus.token, graph.bonus.target_prob) == (9, pytest.approx(float(probs[4, 9])))
        assert graph.first_choices == [1, 5]
        assert [node.state for node in graph.nodes] == judged_by_tokens(TREE, [1, 4], False)

    def test_unwatched_it_does_not(self) -> None:
        graph = made_step(watched=False).graph
        assert {node.target_prob for node in graph.nodes} == {node.target_first for node in graph.nodes} == {None}

    def test_coins_decide_the_states(self) -> None:
        step = Step(made_step().tree, [1], [1, 9], False, tried=[Trial(2, 0.1, False), Trial(1, 0.9, True)])
        assert step.states == ["root", "accepted", "rejected", *["unused"] * 5]
        assert step.graph.nodes[1].shown() == "#1"  # no words

    def test_networkx(self) -> None:
        found = made_step().to_networkx()
        assert set(found.edges) == {(parent, node) for node, parent in enumerate(TREE.parents.tolist()) if node}
        assert found.nodes[5]["rank_path"] == (0, 1) and found.nodes[5]["depth"] == 2
        assert found.nodes[1] | {"text": NASTY[1], "state": "accepted", "draft_prob": 0.5} == found.nodes[1]
        assert found.graph == {"accepted": [1, 4], "first_choices": [1, 5], "bonus": 9, "bonus_text": NASTY[9]}

    def test_networkx_is_missing(self, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setitem(sys.modules, "networkx", None)
        with pytest.raises(ConfigError, match="needs networkx: pip install networkx"):
            made_step().to_networkx()


class TestDot:
    def test_says_every_node_and_edge(self) -> None:
        lines = nasty_graph().to_dot().splitlines()
        labels = dict(match.group(1, 2) for line in lines if (match := LABEL.match(line)))
        assert list(labels) == [*(f"n{node}" for node in range(8)), "bonus"]
        edges = {tuple(line.split(" [")[0].strip().split(" -> ")) for line in lines if "->" in line}
        assert edges == {(f"n{parent}", f"n{node}") for node, parent in enumerate(TREE.parents) if node} | {
            ("n4", "bonus")
        }
        for node in range(8):
            token, _, _ = labels[f"n{node}"].replace(r"\\", "\0").partition(r"\n")
            plain = token.replace(r"\"", '"').replace("\0", "\\").replace("&amp;", "&")
            assert token_text(NASTY[node]) in plain

    def test_nothing_gets_out(self) -> None:
        """A quote ends no label, a backslash begins no escape, an entity is not read as one."""
        text = nasty_graph().to_dot()
        outside = re.sub(r'"(?:[^"\\]|\\.)*"', '""', text)
        assert not set(outside) & set("&<\\") and "script" not in outside
        assert "&amp;" in text and not re.search(r"&(?!amp;)", text)
        assert all(letter.isprintable() or letter == "\n" for letter in text)


class TestPicture:
    def test_is_xml_with_every_token(self) -> None:
        root = ElementTree.fromstring(step_svg(nasty_graph()))
        texts = ["".join(text.itertext()) for text in root.iter(f"{SVG}text")]
        for node in range(8):
            assert any(token_text(NASTY[node], 11).rstrip("\u2026") in text for text in texts), node
        assert {element.tag.removeprefix(SVG) for element in root.iter()} == {
            "svg",
            "title",
            "style",
            "rect",
            "path",
            "text",
        }

    def test_its_styles_stay_in_it(self) -> None:
        """A picture that is pasted into a page restyles nothing there."""
        root = ElementTree.fromstring(step_svg(nasty_graph()))
        (style,) = root.iter(f"{SVG}style")
        rules = re.findall(r"([^{}]+)\{", style.text or "")
        assert rules and all(rule.startswith(f".{root.get('class')} ") for rule in rules)

    def test_as_html_it_carries_itself(self) -> None:
        (encoded,) = re.findall(r'src="data:image/svg\+xml;base64,([^"]*)">$', made_step()._repr_html_())
        assert b64decode(encoded).decode() == made_step().to_svg()

    def test_a_phase_does_not_tell_the_next(self) -> None:
        graph = made_step().graph
        pictures = {phase: drawn(graph, phase).elements for phase in PHASES}
        assert len(set(pictures.values())) == 4
        assert "target" not in pictures["draft"] and "\u25ce" not in pictures["draft"]
        assert pictures["verify"].count("\u25ce") == 2 and "\u2713" not in pictures["verify"]
        assert pictures["accept"].count("\u2713") == 2 and "\u25c6" not in pictures["accept"]
        assert pictures["bonus"].count("\u25c6") == 1
        assert [pictures["draft"].count(mark) for mark in "\u2605"] == [2]

    def test_an_end_instead_of_a_bonus(self) -> None:
        step = made_step()
        cut = Step(step.tree, [1, 4], [1, 4], True)
        assert (
            "the text ends" in step_svg(cut.graph) and "bonus ->" not in cut.to_dot() and "-> bonus" not in cut.to_dot()
        )
