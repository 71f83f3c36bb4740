"""A text without token ids, in tokens that the target could have chosen."""

from __future__ import annotations

from collections.abc import Sequence

import pytest
import torch

from specdraft.errors import PromptError
from specdraft.losslessness.against import Deviation, Given, Read
from specdraft.losslessness.rereading import reread, tokens_of

PIECES = ["<s>", "a", "b", "ab", "ba", " a", " b", " ", "\ufffd", "\u00e9"]
A, B, AB, BA, _A, _B, SPACE, HALF, WHOLE = range(1, 10)


class Toy:
    """Reads from left to right, the longest piece first."""

    def decode(self, ids: Sequence[int], after: Sequence[int] = ()) -> str:
        return "".join(PIECES[token] for token in ids if token)

    def encode_plainly(self, text: str) -> list[int]:
        ids: list[int] = []
        while text:
            piece = max((p for p in PIECES[1:] if text.startswith(p)), key=len)
            ids.append(PIECES.index(piece))
            text = text[len(piece) :]
        return ids


class Spaced(Toy):
    """Puts a space in front of whatever it encodes, as SentencePiece does."""

    def encode_plainly(self, text: str) -> list[int]:
        return super().encode_plainly(f" {text}")

    def decode(self, ids: Sequence[int], after: Sequence[int] = ()) -> str:
        whole = super().decode([*after, *ids]).removeprefix(" ")
        before = super().decode(after).removeprefix(" ")
        return whole.removeprefix(before)


def flat(prompt: Sequence[int], ids: Sequence[int]) -> torch.Tensor:
    """No token is likelier than another."""
    return torch.zeros(len(PIECES))


def reading(text: str, own: int, position: int, gap: float = 1.0) -> Read:
    ids = Toy().encode_plainly(text)
    return Read(Given("p", [0], ids, text), [Deviation(position, ids[position], own, gap)], True)


@pytest.mark.parametrize(
    ("text", "own", "position", "expected"),
    [
        ("abab", A, 0, [A, BA, B]),
        ("abab", A, 1, [AB, A, B]),
        ("abab", B, 0, None),  # other letters: a difference
        ("ab ab", B, 1, None),
        ("aba", BA, 1, None),
        ("abb", BA, 1, [AB]),  # the text was cut within a piece
        ("ab", _A, 0, [_A, B]),  # its first space was stripped
    ],
)
def test_the_targets_own_token_is_taken_where_the_letters_allow(
    text: str, own: int, position: int, expected: list[int] | None
) -> None:
    other = reread(reading(text, own, position), 1e-4, Toy(), flat)
    assert (other and other.token_ids) == expected


def test_what_came_with_ids_stays_as_it_is() -> None:
    text = reading("abab", A, 0)
    assert reread(text._replace(given=text.given._replace(text=None)), 1e-4, Toy(), flat) is None


def test_beyond_a_difference_nothing_is_looked_at() -> None:
    ids = Toy().encode_plainly("abab")
    for gap, expected in ((1.0, None), (1e-5, [AB, A, B])):
        text = Read(Given("p", [0], ids, "abab"), [Deviation(0, AB, _B, gap), Deviation(1, AB, A, 1.0)], True)
        other = reread(text, 1e-4, Toy(), flat)
        assert (other and other.token_ids) == expected


def test_a_tie_stays_as_it_is() -> None:
    """The target's own token would have the same first letters; what follows need not go with it."""
    assert reread(reading("abab", A, 0, gap=0.3), 0.5, Toy(), flat) is None
    assert reread(reading("abab", A, 0, gap=0.7), 0.5, Toy(), flat) is not None


def test_what_a_tie_led_to_is_written_as_it_is_likeliest() -> None:
    """The target would not have gone on so; of the ways to write it one is far likelier than the tokenizer's."""

    def logits_after(prompt: Sequence[int], ids: Sequence[int]) -> torch.Tensor:
        assert (list(prompt), list(ids)) == ([0], [AB])
        return torch.tensor([0.0, 3, 9, 1, 0, 0, 0, 0, 0, 0])  # ` a`, ` b`: other letters

    other = reread(reading("abab", _B, 1), 1e-4, Toy(), logits_after)
    assert other is not None and other.token_ids == [AB, A, B]
    assert reread(reading("abab", _B, 1, gap=1e-5), 1e-4, Toy(), logits_after) is None  # a tie stays
    assert reread(reading("abb", _B, 1), 1e-4, Toy(), logits_after) is None  # it is the likeliest


def test_a_part_of_a_character_cannot_be_told() -> None:
    with pytest.raises(PromptError, match="at token 1 a character may be written in parts"):
        reread(reading("a\u00e9", HALF, 1), 1e-4, Toy(), flat)
    assert reread(reading("ab b", HALF, 1), 1e-4, Toy(), flat) is None


def test_a_space_in_front_is_not_part_of_the_text() -> None:
    assert tokens_of("b", [_A], Spaced()) == [B]
    assert tokens_of(" b", [_A], Spaced()) == [_B]


def test_a_text_that_does_not_come_back() -> None:
    class Lower(Toy):
        def encode_plainly(self, text: str) -> list[int]:
            return super().encode_plainly(text.lower())

    assert tokens_of("aB", [0], Lower()) is None
