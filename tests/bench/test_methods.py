"""Methods in turns: order, rounds, what ends them, and what is made of the seconds."""

from __future__ import annotations

from collections import Counter
from itertools import count
from math import inf, nan
from typing import Any

import numpy as np
import pytest

from specdraft.bench.method_tables import Kind, Named, method_tables
from specdraft.bench.methods import Decoded, Measured, Method, Rounds, Until, timing_width, typical
from specdraft.errors import ConfigError, LosslessnessError, UserError
from specdraft.prompts import Prompt
from specdraft.results.metrics import Tally

PROMPTS = [Prompt(f"p{number}", ("a", "b")[number % 2], "text") for number in range(6)]


def taking(seconds: dict[str, float], order: list[str] | None = None, noise: float = 0.0) -> Any:
    """A maker of methods that decode three tokens in so many seconds, later rounds in `noise` more."""
    asked: Counter[tuple[str, str]] = Counter()

    def method(name: str, text: tuple[int, ...] = (1, 2, 3), fails_on: str = "") -> Method:
        def decode(prompt: Prompt) -> Decoded:
            if order is not None:
                order.append(name)
            if prompt.prompt_id == fails_on:
                raise UserError("no room")
            asked[name, prompt.prompt_id] += 1
            wall_s = seconds[name] * (1 + noise * (asked[name, prompt.prompt_id] - 1))
            return Decoded([*text], Tally(steps=2, bonus_tokens=2, new_tokens=3, wall_s=wall_s))

        return Method(name, decode)

    return method


def same(prompt: Prompt, plain: list[int], text: list[int]) -> dict[str, Any] | None:
    if plain != text and text[0] != 9:
        raise LosslessnessError("bug: another text")
    return {"position": 0, "gap": 0.0} if plain != text else None


def test_every_method_decodes_every_prompt_in_turn_and_another_one_begins_each_time() -> None:
    order: list[str] = []
    method = taking({"plain": 2.0, "quick": 1.0, "slow": 4.0}, order)
    rounds = Rounds(method("plain"), [method("quick"), method("slow")], PROMPTS, same)
    rounds.run(Until(width=0.05, max_rounds=9))
    turns = [order[start : start + 3] for start in range(0, len(order), 3)]
    assert turns[:4] == [
        ["plain", "quick", "slow"],
        ["quick", "slow", "plain"],
        ["slow", "plain", "quick"],
        ["plain", "quick", "slow"],
    ]
    assert len(turns) == 2 * len(PROMPTS)  # timing is steady, so two rounds tell all that more would
    assert {one.method: one.tally.plain_s / one.tally.wall_s for one in rounds.measured} == {
        "plain": 1.0,
        "quick": 2.0,
        "slow": 0.5,
    }
    assert rounds.widths == {"quick": 0.0, "slow": 0.0}


def test_rounds_go_on_until_speed_ups_are_narrow_or_a_limit_is_met() -> None:
    def rounds_of(noise: float, until: Until, **more: Any) -> int:
        steady, shaky = taking({"plain": 1.0}), taking({"other": 1.0}, noise=noise)
        rounds = Rounds(steady("plain"), [shaky("other")], PROMPTS, same, **more)
        rounds.run(until)
        return 1 + max(one.round for one in rounds.measured)

    assert rounds_of(0.001, Until(0.05, 9)) == 2
    assert rounds_of(0.5, Until(0.05, 4)) == 4
    assert rounds_of(0.0, Until(0.05, 1)) == 1  # as asked, though nothing is known of its width
    clock = count()  # a second for each look at it
    assert rounds_of(0.5, Until(0.001, 9, max_s=8.0), now=lambda: float(next(clock))) == 3


def test_the_first_round_is_finished_whatever_the_time() -> None:
    clock = count(0, 1000)
    method = taking({"plain": 1.0, "other": 1.0})
    rounds = Rounds(method("plain"), [method("other")], PROMPTS, same, now=lambda: float(next(clock)))
    rounds.run(Until(max_s=1.0))
    assert len(rounds.measured) == 2 * len(PROMPTS)


def test_a_method_that_fails_or_has_another_text_is_left_out_and_the_others_go_on() -> None:
    method = taking({"plain": 1.0, "fails": 1.0, "wrong": 1.0, "tie": 1.0})
    others = [method("fails", fails_on="p3"), method("wrong", text=(4, 5)), method("tie", text=(9,))]
    rounds = Rounds(method("plain"), others, PROMPTS, same)
    rounds.run(Until(max_rounds=2))
    assert rounds.failed == {"fails": "prompt p3: no room", "wrong": "prompt p0: bug: another text"}
    assert {one.method for one in rounds.measured} == {"plain", "tie"}
    assert [tie["prompt_id"] for tie in rounds.ties] == [prompt.prompt_id for prompt in PROMPTS]  # once each


def test_what_plain_decoding_raises_ends_the_run_and_what_was_measured_stays() -> None:
    method = taking({"plain": 1.0, "other": 1.0})
    rounds = Rounds(method("plain", fails_on="p2"), [method("other")], PROMPTS, same)
    with pytest.raises(UserError, match="no room"):
        rounds.run(Until())
    assert [(one.method, one.prompt.prompt_id) for one in rounds.measured] == [
        ("plain", "p0"),
        ("other", "p0"),
        ("plain", "p1"),
        ("other", "p1"),
    ]


def test_the_width_covers_what_timing_makes_of_a_speed_up() -> None:
    """Of many benchmarks with noisy clocks, 95 in 100 have the true speed-up within the width."""
    random = np.random.default_rng(0)
    true = random.uniform(1, 5, size=20)  # seconds of each prompt, which differ a lot
    covered, widths = 0, []
    for _ in range(400):
        plain, own = (true * share * random.normal(1, 0.1, size=(3, 20)) for share in (1.0, 0.5))
        width = timing_width(plain, own)
        speedup = plain.sum() / own.sum()
        covered += abs(speedup - 2.0) <= width * speedup / 2
        widths.append(width)
    assert 0.92 <= covered / 400 <= 0.98
    assert 0.05 < np.mean(widths) < 0.15
    assert timing_width(plain[:1], own[:1]) == inf


def measured(method: str, walls: list[float], plain: list[float], prompt: Prompt = PROMPTS[0]) -> list[Measured]:
    both = enumerate(zip(walls, plain, strict=True))
    tallies = [(r, Tally(steps=2, accepted_tokens=4, new_tokens=6, wall_s=w, plain_s=p)) for r, (w, p) in both]
    return [Measured(method, prompt, number, tally) for number, tally in tallies]


def test_of_rounds_the_median_one_counts() -> None:
    (one,) = typical(measured("m", [1.0, 90.0, 2.0], [7.0, 4.0, 60.0]))
    assert (one.tally.wall_s, one.tally.plain_s) == (2.0, 7.0)
    (of_two,) = typical(measured("m", [3.0, 1.0], [5.0, 4.0]))
    assert (of_two.tally.wall_s, of_two.tally.plain_s) == (1.0, 4.0)


def test_tables_have_every_method_and_the_figures_without_loops() -> None:
    turns = []
    for number, prompt in enumerate(PROMPTS):
        looped = 6 if number == 5 else 0
        for name, wall_s in (("plain", 2.0), ("other", 0.25 if looped else 1.0 + number / 10)):
            tally = Tally(steps=2, accepted_tokens=4, drafted_tokens=8, bonus_tokens=2, new_tokens=6, wall_s=wall_s)
            tally.plain_s, tally.looped_tokens, tally.draft_s = 2.0, looped, nan
            turns.append(Measured(name, prompt, 0, tally))
    named = [Named("plain", Kind.PLAIN), Named("other", Kind.OURS, "ngram", "chain", 4), Named("none", Kind.OURS)]
    tables = method_tables(turns, named, {"none": "no weights"}, {"other": 0.5})
    every = tables.summary[tables.summary["texts"] != "loop_share <= 0.3"].set_index("method")
    assert list(every.index) == ["plain", "other", "none"]
    assert every.loc["other", "speedup"] == pytest.approx(12.0 / (1.0 + 1.1 + 1.2 + 1.3 + 1.4 + 0.25))
    assert every.loc["other", "speedup_lo"] < every.loc["other", "speedup"] < every.loc["other", "speedup_hi"]
    assert (every.loc["other", "acceptance_rate"], every.loc["other", "block_efficiency"]) == (0.5, 3.0)
    assert (every.loc["other", "loop_share"], every.loc["other", "timing_width"]) == (1 / 6, 0.5)
    assert (every.loc["none", "reason"], every.loc["other", "reason"]) == ("no weights", "")
    assert np.isnan(every.loc["none", "speedup"])
    free = tables.summary[tables.summary["texts"] == "loop_share <= 0.3"].set_index("method")
    assert (free.loc["other", "speedup"], free.loc["other", "prompts"]) == (pytest.approx(10.0 / 6.0), 5)
    of_b = tables.by_category.query("method == 'other' and category == 'b' and texts == 'all'")
    assert of_b["speedup"].tolist() == [pytest.approx(6.0 / (1.1 + 1.3 + 0.25))]
    assert len(tables.turns) == 12


@pytest.mark.parametrize("key", [{"width": 0.0}, {"width": nan}, {"max_rounds": 0}, {"max_s": 0.0}])
def test_limits_out_of_range_are_refused(key: dict[str, float]) -> None:
    with pytest.raises(ConfigError, match=f"bench.{next(iter(key))}=.* is out of range; expected"):
        Until(**key).check()  # type: ignore[arg-type]
