"""What `specdraft certify` prints."""

from __future__ import annotations

from collections.abc import Iterable
from typing import TYPE_CHECKING

from rich.text import Text

if TYPE_CHECKING:
    from rich.console import RenderableType

    from specdraft.study.certify import RuleVerdict, Verdict


def verdict_lines(verdict: Verdict) -> Iterable[RenderableType]:
    """Every rule in a few lines, then the verdict."""
    for rule in verdict.rules:
        yield from _rule_lines(rule)
    wrong = sorted({rule.checked.rule for rule in verdict.rules if rule.wrong})
    untested = sorted({rule.checked.rule for rule in verdict.rules if not rule.wrong and not rule.certified})
    if untested:
        yield Text(f"NOT TESTED: {', '.join(untested)}", style="bold yellow")
    if wrong:
        yield Text(f"NOT CERTIFIED: {', '.join(wrong)}", style="bold red")
    if verdict.certified:
        yield Text(
            f"CERTIFIED: the text of {len(verdict.rules)} {_plural('rule', len(verdict.rules))} is the target's own",
            style="bold green",
        )


def _rule_lines(rule: RuleVerdict) -> Iterable[Text]:
    checked = rule.checked
    if rule.certified:
        mark = Text("certified     ", style="green")
    else:
        mark = Text("NOT certified ", style="bold red") if rule.wrong else Text("not tested    ", style="yellow")
    yield Text.assemble(mark, (checked.rule, "bold"), f" on {checked.tree}, {checked.sampling}, pair {checked.pair}")
    if rule.proof is not None:
        yield Text(f"  enumeration: {rule.proof.verdict()}")
    yield Text(f"  live text:   {checked.verdict}")


def _plural(word: str, count: int) -> str:
    return word if count == 1 else f"{word}s"
