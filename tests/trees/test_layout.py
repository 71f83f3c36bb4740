from __future__ import annotations

from specdraft.trees.layout import first_choices
from specdraft.trees.topology import Topology

UNEVEN = Topology([-1, 0, 0, 1, 1])  # 3 and 4 below 1; 2 is a leaf


def test_a_short_path_is_not_starred_over_the_first_choice() -> None:
    """The leaf 2 is more probable as a path (0.113) than the leaf 3 (0.35 x 0.2 = 0.070), and not what a chain
    drafts."""
    assert first_choices(UNEVEN, [1.0, 0.35, 0.113, 0.2, 0.1]) == [1, 3]


def test_a_later_child_can_be_the_first_choice() -> None:
    assert first_choices(UNEVEN, [1.0, 0.3, 0.2, 0.1, 0.4]) == [1, 4]
    assert first_choices(UNEVEN, [1.0, 0.2, 0.3, 0.1, 0.4]) == [2]


def test_equal_children_by_their_order() -> None:
    assert first_choices(UNEVEN, [1.0, 0.3, 0.3, 0.2, 0.2]) == [1, 3]


def test_what_is_unknown_hides_the_path_only_where_it_lies_on_the_way() -> None:
    assert first_choices(UNEVEN, [1.0, 0.3, None, 0.2, 0.1]) == []
    assert first_choices(UNEVEN, [1.0, 0.3, 0.4, None, 0.1]) == [2]
