"""Marks of shapes: colours that the colour-blind can tell apart, the same in every study, no two alike."""

from __future__ import annotations

from itertools import combinations

import numpy as np
import pytest

from specdraft.report.marks import EVERY, FAMILIES, SYMBOLS, ShapeScales, mark_of, marks
from specdraft.report.theme import COLOURS, GREY

DARK, WHITE = "#16181b", "#ffffff"  # the page's papers
SIMULATED = {  # linear RGB as it is seen (Machado, Oliveira and Fernandes 2009, severity 1)
    "all colours": np.eye(3),
    "protan": np.array(
        [[0.152286, 1.052583, -0.204868], [0.114503, 0.786281, 0.099216], [-0.003882, -0.048116, 1.051998]]
    ),
    "deutan": np.array(
        [[0.367322, 0.860646, -0.227968], [0.280085, 0.672501, 0.047413], [-0.011820, 0.042940, 0.968881]]
    ),
    "tritan": np.array(
        [[1.255528, -0.076749, -0.178779], [-0.078411, 0.930809, 0.147602], [0.004733, 0.691367, 0.303900]]
    ),
}
TO_XYZ = np.array(
    [[0.4124564, 0.3575761, 0.1804375], [0.2126729, 0.7151522, 0.0721750], [0.0193339, 0.1191920, 0.9503041]]
)
APART, APART_FROM_GREY = 24, 16  # in CIELAB; 2.3 is the least that is seen side by side


def linear(colour: str) -> np.ndarray:
    """`[3]` linear sRGB of `#RRGGBB`."""
    coded = np.array([int(colour[place : place + 2], 16) for place in (1, 3, 5)]) / 255
    return np.where(coded <= 0.04045, coded / 12.92, ((coded + 0.055) / 1.055) ** 2.4)


def cielab(colour: str, seen: np.ndarray) -> np.ndarray:
    """`[3]` L, a and b of a colour as it is seen."""
    xyz = TO_XYZ @ np.clip(seen @ linear(colour), 0, 1) / TO_XYZ.sum(1)
    f = np.where(xyz > 216 / 24389, np.cbrt(xyz), (24389 / 27 * xyz + 16) / 116)
    return np.array([116 * f[1] - 16, 500 * (f[0] - f[1]), 200 * (f[1] - f[2])])


def contrast(one: str, other: str) -> float:
    """As WCAG 2 has it."""
    low, high = sorted(float(TO_XYZ[1] @ linear(colour)) for colour in (one, other))
    return (high + 0.05) / (low + 0.05)


@pytest.mark.parametrize("seen", SIMULATED)
def test_no_two_colours_look_alike_to_anyone(seen: str) -> None:
    labs = {colour: cielab(colour, SIMULATED[seen]) for colour in (*COLOURS, GREY)}
    for one, other in combinations(labs, 2):
        least = APART_FROM_GREY if GREY in (one, other) else APART
        assert np.linalg.norm(labs[one] - labs[other]) >= least, (one, other)


def test_the_simulation_sees_what_is_known_of_it() -> None:
    """Red and green of one lightness: told apart by most, not by who has no medium-wave cones."""
    apart = {seen: np.linalg.norm(cielab("#D05050", m) - cielab("#748000", m)) for seen, m in SIMULATED.items()}
    assert apart["all colours"] > 3 * apart["deutan"] and apart["tritan"] > 3 * apart["deutan"]


@pytest.mark.parametrize("colour", [*COLOURS, GREY])
def test_colours_stand_out_on_white_and_in_the_dark(colour: str) -> None:
    assert contrast(colour, WHITE) >= 2.35 and contrast(colour, DARK) >= 2.7


def test_no_two_families_have_one_mark() -> None:
    assert len(set(FAMILIES.values())) == len(FAMILIES)


def test_a_mark_follows_from_the_name() -> None:
    few, many = marks(["kary-k3", "chain"]), marks(["wide", "kary-k3", "beam", "chain", "kary", "kary-k2"])
    assert few.items() <= many.items() and few["kary-k3"] == mark_of("kary-k3")
    assert mark_of("kary-k3").colour == mark_of("kary").colour
    assert mark_of("samd/eagle") == mark_of("samd/eagle") != mark_of("samd/default_tree")


def test_no_two_shapes_of_a_study_are_alike() -> None:
    clashing = ["best_first-ab", "best_first-ba", *(f"kary-k{k}" for k in range(2, 40)), "mine", "yours", "chain"]
    assert mark_of("best_first-ab") == mark_of("best_first-ba")
    given = marks(clashing)
    assert len(set(given.values())) == len(clashing) and given == marks(clashing[::-1])
    assert given["chain"] == FAMILIES["chain"]


def test_references_are_grey_dashed_and_not_alike() -> None:
    references = [f"hindsight-md{depth}" for depth in range(2, 8)]
    given = marks(["chain", "hindsight", *references])
    assert {given[name].colour for name in ("hindsight", *references)} == {GREY}
    assert len(set(given.values())) == len(given)
    dashes = ShapeScales(["chain"], references).scale(["chain", *references], 2).to_dict()["range"]
    assert dashes[0] == [1, 0] and all(dash != [1, 0] for dash in dashes[1:])


def test_when_all_marks_are_given_they_are_given_again() -> None:
    names = [f"name{number}" for number in range(len(EVERY) + 5)]
    assert len(set(marks(names).values())) == len(EVERY) and set(marks(names)) == set(names)
    assert len(set(SYMBOLS)) == len(SYMBOLS)
