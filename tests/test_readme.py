"""What README and help topics show: Python blocks run, `specdraft` lines run, links lead somewhere."""

from __future__ import annotations

import re
import shlex
from collections.abc import Iterator
from pathlib import Path
from typing import Any, NamedTuple

import pytest
import typer
from support.command_line import Run

from specdraft.bench.attention_plan import plan_attention
from specdraft.commands.app import app
from specdraft.commands.help_topics import topics
from specdraft.commands.options import DONE
from specdraft.config import compose_study, own_keys, unless_said
from specdraft.study.alignment_fit import AlignmentFit
from specdraft.study.cost_bench import plan_costs
from specdraft.study.method_plan import plan_methods
from specdraft.study.points import schemas
from specdraft.training import settings

ROOT = Path(__file__).parent.parent
README = (ROOT / "README.md").read_text(encoding="utf-8")
TEXTS = {"README": README, **topics()}
FENCE = re.compile(r"(?:<!-- not run: (?P<reason>.+?) -->\n)?^```bash\n(?P<body>.*?)^```", re.DOTALL | re.MULTILINE)
CODE = re.compile(r"^```python\n(.*?)^```", re.DOTALL | re.MULTILINE)
PYTHON = [block for text in TEXTS.values() for block in CODE.findall(text)]
TRAINING = {"medusa": settings.MedusaTraining, "hydra": settings.HydraTraining, "eagle": settings.EagleTraining,
            "redrafter": settings.RedrafterTraining, "parallel": settings.ParallelTraining,
            "nano": settings.NanoTraining, "draft": settings.DraftTraining}  # fmt: skip
ONE = {"pair": "zoo", "tree": "chain", "budget": "4"}  # where a line says nothing else


def less(words: list[str]) -> list[str]:
    """What makes a line quick to run: a plan, of an experiment a small one; a few tokens."""
    match words[0]:
        case "sweep":
            of_experiments = [f"{key}={value}" for key, value in ONE.items()]
            whole = any(word.startswith("experiment=") for word in words)
            said = [word for word in words[1:] if not word.startswith("--")]
            smaller = of_experiments if whole else unless_said(said, ONE)
            return [] if "--print-config" in words else [*smaller, "prompts.limit=4", "--dry-run", "--json"]
        case "generate" | "replay":
            return ["max_new_tokens=4"]
    return []


class Line(NamedTuple):
    """A `specdraft` line of a shell block, and why it is not run."""

    words: list[str]
    reason: str | None


def lines(text: str) -> Iterator[Line]:
    for block in FENCE.finditer(text):
        for line in block["body"].replace("\\\n", " ").splitlines():
            if (words := shlex.split(line, comments=True))[:1] == ["specdraft"]:
                yield Line(words[1:], block["reason"])


def leaf(words: list[str]) -> tuple[Any, list[str]]:
    """The command that these words name, and the words after its name."""
    command = typer.main.get_command(app)
    while words and hasattr(command, "commands") and words[0] in command.commands:
        command, words = command.commands[words[0]], words[1:]
    return command, words


LINES = [line for text in TEXTS.values() for line in lines(text)]
NOT_RUN = [line.words for line in LINES if line.reason]


@pytest.mark.parametrize("words", NOT_RUN, ids=[" ".join(words)[:60] for words in NOT_RUN])
def test_a_line_that_is_not_run_parses_and_composes(words: list[str]) -> None:
    command, rest = leaf(words)
    given = command.make_context(command.name, list(rest)).params
    overrides = list(given.get("overrides") or [])
    match words[:2]:
        case ["bench", "methods"]:
            plan_methods(overrides, None)
            return
        case ["bench", "costs"]:
            plan_costs(overrides, None, given["validate"])
            return
        case ["bench", "attention"]:
            plan_attention(overrides, None)
            return
        case ["train", kind]:
            _, overrides = own_keys("train", overrides, TRAINING[kind])
        case ["fit", "alignment"]:
            _, overrides = own_keys("fit", overrides, AlignmentFit)
    compose_study([*unless_said(overrides, ONE), *overrides], schemas())


@pytest.mark.parametrize("name", [name for name, text in TEXTS.items() if any(not x.reason for x in lines(text))])
def test_the_lines_of_a_text_run(
    name: str, run: Run, tmp_path: Path, tmp_path_factory: pytest.TempPathFactory, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("SPECDRAFT_TRACES", str(tmp_path_factory.getbasetemp() / "traces-of-texts"))
    for line in lines(TEXTS[name]):
        if line.reason is None:
            said = run(*line.words, *less(line.words))
            assert said.code == DONE, (line.words, said.err)
            assert said.out.strip(), line.words


@pytest.mark.parametrize("name", TEXTS)
def test_commands_named_in_a_sentence_exist(name: str) -> None:
    for span in re.findall(r"`specdraft ([^`]+)`", FENCE.sub("", TEXTS[name])):
        words = [word.strip("[]") for word in span.split()]
        command, rest = leaf(words)
        if words[0] == "help" and rest and rest[0].islower():
            assert rest[0] in topics(), span
        if not rest or not rest[0].isupper():
            assert command.name != "specdraft" or words[0].startswith("--"), span
        known = {option for parameter in command.params for option in parameter.opts} | {"--help"}
        assert {word for word in words if word.startswith("--")} <= known, span


@pytest.mark.parametrize("block", PYTHON, ids=range(len(PYTHON)))
def test_a_python_block_runs(block: str, capsys: pytest.CaptureFixture[str]) -> None:
    names: dict[str, Any] = {}
    exec(block.replace('load_pair("zoo")', 'load_pair("zoo-tiny")'), names)
    said = capsys.readouterr().out
    if "table" in names:
        assert {"chain", "kary-k3"} <= set(names["table"]["tree"]) and said.count("block_efficiency_lo") == 2
        return
    result = names["result"]
    ratios = (result.acceptance_rate, result.acceptance_length, result.block_efficiency)
    assert said.startswith(" ".join(map(str, (result.text, *ratios))))
    if "tree" in names:
        assert str(names["tree"].attention_mask()) in said


def test_what_is_shown() -> None:
    assert len(PYTHON) == 3 and len(LINES) > 40
    assert all(name in README for name in topics())
    assert len(README.splitlines()) <= 240


@pytest.mark.parametrize("link", re.findall(r"\]\(([^)#]+)\)", README))
def test_a_link_leads_somewhere(link: str) -> None:
    assert link.startswith("https://") or (ROOT / link).exists()
