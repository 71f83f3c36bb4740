"""Stores that do not see each other's folders have the same traces."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from specdraft.traces.handed_over import BorrowingStore, Found, StoreShelf
from specdraft.traces.store import TraceFiles, TraceStore

ABOUT = {"kind": "trajectory", "prompt": "p"}
OLD, NEW = ({"tokens": np.arange(count)} for count in (3, 5))


class CountedShelf(StoreShelf):
    """Counts what is carried."""

    def __init__(self, folder: Path) -> None:
        super().__init__(folder)
        self.looks, self.puts, self.carried = 0, 0, 0

    def look(self, key: str, known: str | None) -> Found:
        found = super().look(key, known)
        self.looks, self.carried = self.looks + 1, self.carried + (found.files is not None)
        return found

    def put(self, key: str, files: TraceFiles) -> None:
        super().put(key, files)
        self.puts += 1


@pytest.fixture
def driver(tmp_path: Path) -> TraceStore:
    return TraceStore(tmp_path / "driver")


@pytest.fixture
def shelf(driver: TraceStore) -> CountedShelf:
    return CountedShelf(driver.folder)


@pytest.fixture
def own(tmp_path: Path, shelf: CountedShelf) -> BorrowingStore:
    return BorrowingStore(tmp_path / "own", shelf)


def tokens(store: TraceStore) -> list[int] | None:
    tensors = store.get(ABOUT)
    return None if tensors is None else tensors["tokens"].tolist()


def test_what_is_recorded_is_handed_over(driver: TraceStore, own: BorrowingStore) -> None:
    assert tokens(own) is None
    own.labelled(prompts="instruct").put(ABOUT, OLD)
    assert tokens(driver) == tokens(own) == [0, 1, 2]
    (listed,) = driver.list()
    assert listed.labels == {"prompts": "instruct"}


def test_what_is_needed_is_fetched_once(driver: TraceStore, own: BorrowingStore, shelf: CountedShelf) -> None:
    driver.put(ABOUT, OLD)
    assert [tokens(own), tokens(own.labelled(target="t")), tokens(TraceStore(own.folder))] == [[0, 1, 2]] * 3
    assert (shelf.looks, shelf.carried, shelf.puts) == (1, 1, 0)
    own.look_again()
    assert tokens(own) == [0, 1, 2]
    assert (shelf.looks, shelf.carried, shelf.puts) == (2, 1, 0)  # equal: nothing is carried


def test_what_one_had_before_is_handed_over(driver: TraceStore, own: BorrowingStore, shelf: CountedShelf) -> None:
    TraceStore(own.folder).put(ABOUT, OLD)
    assert tokens(own) == tokens(driver) == [0, 1, 2]
    assert shelf.puts == 1


def test_where_two_differ_the_shelf_is_right(driver: TraceStore, own: BorrowingStore, shelf: CountedShelf) -> None:
    TraceStore(own.folder).put(ABOUT, OLD)
    driver.put(ABOUT, NEW)
    assert tokens(own) == tokens(TraceStore(own.folder)) == [0, 1, 2, 3, 4]
    assert shelf.puts == 0


def test_what_changes_meanwhile_is_seen_at_the_next_look(driver: TraceStore, own: BorrowingStore) -> None:
    assert tokens(own) is None
    driver.put(ABOUT, OLD)
    assert tokens(own) == [0, 1, 2]  # what is missing is asked for each time
    driver.put(ABOUT, NEW)
    assert tokens(own) == [0, 1, 2]
    own.look_again()
    assert tokens(own) == [0, 1, 2, 3, 4]


def test_a_damaged_trace_of_either_side_is_not_carried(driver: TraceStore, own: BorrowingStore) -> None:
    key = driver.put(ABOUT, NEW)
    assert tokens(own) == [0, 1, 2, 3, 4]
    (own.folder / f"{key}.safetensors").write_bytes(b"torn")
    assert tokens(own) == [0, 1, 2, 3, 4]  # fetched again
    (driver.folder / f"{key}.safetensors").write_bytes(b"torn")
    own.look_again()
    assert tokens(own) == tokens(driver) == [0, 1, 2, 3, 4]  # handed over again
