from __future__ import annotations

import re
from dataclasses import replace
from pathlib import Path
from xml.etree import ElementTree

import pytest
from support.viewing import Nasty, nasty_step

from specdraft.errors import ConfigError
from specdraft.viewer.animation import BEATS, animation

SVG = "{http://www.w3.org/2000/svg}"
IN_README = Path(__file__).parents[2] / "results" / "reference" / "animation.svg"


def frames(svg: str) -> list[str]:
    root = ElementTree.fromstring(svg)
    return ["".join(group.itertext()) for group in root.iter(f"{SVG}g") if group.get("class", "").startswith("frame")]


def test_a_frame_for_every_phase() -> None:
    texts = frames(animation(Nasty().shown()))
    assert len(texts) == 8
    assert ["its first choice" in text for text in texts[:2]] == [True, False]
    assert ["\u2713" in text for text in texts[:4]] == [False, False, True, True]
    assert ["\u25c6" in text for text in texts[:4]] == [False, False, False, True]
    assert ["tokens per pass" in text for text in texts[:5]] == [False, False, False, True, True]


def test_the_text_grows_when_a_token_is_emitted() -> None:
    root = ElementTree.fromstring(animation(Nasty().shown()))
    grown = []
    for group in [group for group in root.iter(f"{SVG}g") if group.get("class", "").startswith("frame")]:
        kinds = [part.get("class") for part in group.iter(f"{SVG}tspan")]
        grown.append((kinds.count("accepted") > 0, kinds.count("bonus") > 0))
    assert grown == [(False, False), (False, False), (True, False), *[(True, True)] * 5]


def test_times_follow_one_another_and_fill_the_round() -> None:
    svg = animation(Nasty().shown())
    whole = 2 * sum(BEATS.values())
    assert f"animation:{whole:.1f}s step-end infinite" in svg
    shown = [float(at) for at in re.findall(r"([\d.]+)%\{visibility:visible\}", svg)]
    hidden = [float(at) for at in re.findall(r"([\d.]+)%\{visibility:hidden\}\}", svg)]
    assert shown == sorted(shown) and shown[0] == 0 and shown[1:] == hidden
    assert shown[1] == pytest.approx(100 * BEATS["draft"] / whole, abs=0.001)


def test_texts_are_texts() -> None:
    """The nasty tokens open no element, and nothing is asked of a network."""
    root = ElementTree.fromstring(animation(Nasty().shown()))
    tags = {element.tag.removeprefix(SVG) for element in root.iter()}
    assert tags == {"svg", "title", "style", "rect", "path", "text", "tspan", "g"}
    assert not any("script" in key or key.startswith("on") for element in root.iter() for key in element.attrib)


def test_nothing_to_animate() -> None:
    with pytest.raises(ConfigError, match="no step to animate"):
        animation(replace(Nasty().shown(), steps=[]))


def test_no_caption_is_cut() -> None:
    step = replace(nasty_step(), why="word " * 90 + "end")
    texts = frames(animation(replace(Nasty().shown(), steps=[step])))
    assert "end" in texts[2]


def test_the_readme_has_one() -> None:
    assert IN_README.stat().st_size < 500_000
    texts = frames(IN_README.read_text(encoding="utf-8"))
    assert len(texts) == 24 and "(value,))" in texts[-1]
