"""Drafters that read one state of the target: the last one of the token before the root."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

import numpy as np
import torch

from specdraft.drafters.base import Drawing, Prefilled, RecordedText
from specdraft.drafters.loaded.by_offset import Known, StartsDrafter
from specdraft.errors import ModelError
from specdraft.models.cached_model import CachedModel
from specdraft.models.language_model import tail_mask
from specdraft.models.output_layer import LAST, TOLERANCE
from specdraft.trees.draft_tree import DraftTree
from specdraft.trees.shapes.chain import Chain


class LastStateDrafter(StartsDrafter):
    """See `StartsDrafter`: it keeps the state that it reads next, `_before` `[1, width]`."""

    def __init__(self, target: CachedModel, known: Known) -> None:
        super().__init__(target, known)
        self._before = self._after_prompt = torch.empty(0, 0)

    def begin(self, prompt: Prefilled) -> None:
        """See `Drafter.begin`: the first root is not in the prompt, the token before it is the prompt's last."""
        assert prompt.hidden is not None
        self._before = self._after_prompt = prompt.hidden[-1:, 0]

    def rewind(self) -> None:
        """See `Drafter.rewind`."""
        self._before = self._after_prompt

    def commit(self, tree: DraftTree, accepted_nodes: Sequence[int], hidden: torch.Tensor | None = None) -> None:
        """See `Drafter.commit`: the next root follows the last accepted node, or the root itself."""
        assert hidden is not None
        self._before = hidden[-1:, 0]


def states_before(text: RecordedText) -> torch.Tensor:
    """`[T, width]` the state of the token before the root, of a root at each of the positions 0 .. T - 1."""
    assert text.hidden is not None
    first = len(text.prompt_ids) - 1  # the last token of the prompt comes before position 0
    return text.hidden[first : first + len(text.tokens) - 1, 0]


FIRST, AFTER_STEP, PROBED = 4, 6, 8  # places in the text that the wiring is checked on, and its tokens


@torch.inference_mode()
def check_wiring(drafter: LastStateDrafter, target: CachedModel, name: str) -> dict[str, float]:
    """Draft a chain after a prompt and after a step, and compare with what is said of the state before the root along
    the same tokens.

    That state is the base model's last one, after its final norm, from a forward without a cache or a tree.

    Returns:
        The largest absolute difference of logits, and that of the state one token earlier, for the manifest.

    Raises:
        ModelError: they differ.
    """
    text = [(7 * place + 3) % target.vocab for place in range(PROBED)]
    states = target.model.base_model(torch.tensor([text], device=target.device), use_cache=False).last_hidden_state[0]
    error = control = largest = 0.0
    for place, tree in zip((FIRST, AFTER_STEP), _drafted(drafter, target, text), strict=True):
        assert tree.chosen_from is not None
        drafted, chain = tree.chosen_from.logits, np.array(tree.token_list())
        said, before = (
            drafter.along(RecordedText(text[: at + 1], chain, states[: at + 1, None]))(0, 1, len(drafted))[0]
            for at in (place, place - 1)
        )
        error, control = max(error, apart(said, drafted)), max(control, apart(before, drafted))
        largest = max(largest, apart(said, torch.zeros_like(said)))
    if not error <= TOLERANCE * largest:
        raise ModelError(
            f"{name}: the target's states are not those that its heads read: logits differ by {error:.3g} from what "
            "they say of the last state before the root"
        )
    return {"error": error, "control": control}


def _drafted(drafter: LastStateDrafter, target: CachedModel, text: Sequence[int]) -> Iterator[DraftTree]:
    """What was drafted after a prompt, and after a step that accepted one token."""
    assert drafter.traits.deepest is not None
    model, plan = CachedModel(target.model, target.vocab, target.width), Chain().at(drafter.traits.deepest)
    drafter.begin(Prefilled(text[: FIRST + 1], model.prefill(text[: FIRST + 1], (LAST,)).hidden))
    tree = drafter.draft(text[FIRST + 1], plan, Drawing(keep_logits=True))
    yield tree
    step = torch.tensor(text[FIRST + 1 : AFTER_STEP + 1], device=model.device)
    order = torch.arange(len(step), device=model.device)
    causal = tail_mask(order[:, None] >= order, model.dtype)
    drafter.commit(tree, [1], model.append(step, order, causal, (LAST,)).hidden)
    yield drafter.draft(text[AFTER_STEP + 1], plan, Drawing(keep_logits=True))


def apart(one: torch.Tensor, other: torch.Tensor) -> float:
    """The largest absolute difference; ids that have no logit aside."""
    return float((one - other).nan_to_num(0.0, 0.0, 0.0).abs().max())
