"""What pages are made from, and texts that try to break them."""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any

from specdraft.models.prompt_reader import Piece
from specdraft.trees.states import judged_by_tokens
from specdraft.trees.tokens import token_text
from specdraft.trees.topology import Topology
from specdraft.viewer.steps import Seen, Shown, ShownStep

NASTY = ["</script><script>alert(1)</script>", "\"'&<b>", "\n\t\x1b[31m\x07", "\u202eabc", "\u05e9\u05dc\u05d5\u05dd"]

NASTY += ["\u65e5\u672c\u8a9e" * 9, "\U0001f469\u200d\U0001f4bb", "\ufffd", "", "{{ 7 * 7 }}", " ", "\ud800", "\u2028"]
TREE = Topology([-1, 0, 0, 0, 1, 1, 4, 4])


def nasty_step(unknown: bool = False) -> ShownStep:
    states = judged_by_tokens(TREE, [1, 4], False)
    nodes = [
        Seen(node, state, 1 / (node + 1), None if node == 0 or unknown else 0.5) for node, state in enumerate(states)
    ]
    if unknown:
        nodes[6] = Seen(None, "unused")
    return ShownStep(TREE, nodes, [1, 4], 9, 0.25, f"after {token_text(NASTY[0])}")


class Nasty:
    """A showing whose every token is hard to show."""

    prompt = (Piece("".join(word for word in NASTY if word != "\ud800"), False),)

    def word(self, token: int) -> str:
        return NASTY[token % len(NASTY)]

    def steps(self) -> Any:
        yield nasty_step()
        yield nasty_step(unknown=True)

    def text(self) -> str:
        return self.prompt[0].text * 3

    def shown(self) -> Shown:
        return Shown(
            {"tree": "<b>kary</b>"}, self.prompt, self.text(), 3, list(self.steps()), self.word, ["<i>note</i>"]
        )

    def result(self) -> Any:
        raise NotImplementedError


def data_of(text: str) -> Any:
    (data,) = re.findall(r'<script type="application/json" id="data">(.*?)</script>', text, re.DOTALL)
    return json.loads(data)


STUDY = Path(__file__).parents[2] / "results" / "reference"
