"""Is what an EAGLE drafter says, live and along texts, what its head says from scratch?

From scratch: the whole text before a root is read again for every drafted token, in one causal forward, with the
target's features up to the root and the head's own outputs after it; no cache, no tree, no diagonal masks.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence

import numpy as np
import torch

from specdraft.drafters.base import Drawing, Prefilled, RecordedText
from specdraft.drafters.loaded.eagle_drafter import EagleDrafter
from specdraft.drafters.loaded.eagle_model import EagleModel
from specdraft.errors import ModelError
from specdraft.trees.shapes.chain import Chain

TOKENS, STARTS, DEPTH = 12, (4, 6, 9), 3  # of the random text; places of its roots; levels below each
EXACT, ROUNDED = 1e-4, 5e-2  # of the largest logit, in float32 and in 16 bits


@torch.inference_mode()
def check_wiring(
    drafter: EagleDrafter, model: EagleModel, d2t: torch.Tensor | None, layers: Sequence[int], name: str
) -> dict[str, float]:
    """Compare with drafting from scratch below three roots: live after a prompt and after steps, and along a text.

    Args:
        drafter: what is checked.
        model: its head.
        d2t: as it is stored (see `models.eagle_layout`).
        layers: of the target's states those that the head reads.
        name: of the head, for people.

    Returns:
        The largest absolute difference of logits, and that of features one token too old, for the manifest.

    Raises:
        ModelError: they differ, or ranks along the text do.
    """
    target = model.target
    generator = torch.Generator().manual_seed(0)
    ids = torch.randint(0, target.vocab, (TOKENS,), generator=generator).tolist()
    _, hidden = target.forward(torch.tensor([ids], device=target.device), layers)
    scratch = Scratch(model, d2t, ids, hidden[0])
    error = control = size = 0.0
    for root, (tokens, drafted) in zip(STARTS, _live(drafter, scratch), strict=True):
        wanted = scratch.below(root, tokens)
        error = max(error, _apart(wanted, drafted))
        control = max(control, _apart(scratch.below(root, tokens, 1), drafted))
        size = max(size, float(wanted[wanted.isfinite()].abs().max()))
    allowed = size * (EXACT if target.dtype == torch.float32 else ROUNDED)
    if not error <= allowed:
        raise ModelError(
            f"{name}: the load-time self-check failed: drafted logits differ by {error:.3g} from what the head says "
            "when it reads the text anew"
        )
    if not _ranks_agree(drafter, scratch, allowed):
        raise ModelError(f"{name}: the load-time self-check failed: ranks along a text are not those of drafting it")
    return {"error": error, "control": control}


class Scratch:
    """A random text, and what a head says below its tokens when it reads everything anew.

    Args:
        model: the head.
        d2t: see `check_wiring`.
        ids: the text.
        hidden: `[tokens, L, w]` the target's states, from a forward without a cache.
    """

    def __init__(self, model: EagleModel, d2t: torch.Tensor | None, ids: list[int], hidden: torch.Tensor) -> None:
        self.ids, self.hidden, self._model = ids, hidden, model
        self._ids = None if d2t is None else torch.arange(len(d2t)) + d2t

    def below(self, root: int, tokens: Sequence[int], late: int = 0) -> torch.Tensor:
        """`[depth, vocab]` logits before each of these tokens below a root, from features `late` tokens too old."""
        head, model = self._model.head, self._model
        read, features = [*self.ids[1 + late : root + 1], *tokens], model.fuse(self.hidden[: root - late])
        said = []
        for last in range(len(features), len(features) + len(tokens)):
            state = self._last_state(model.embed(torch.tensor([read[:last]], device=features.device)), features[None])
            normed = head.norm(state) if head.shape.final_norm else state
            said.append(self._logits(normed))
            features = torch.cat([features, (normed if head.shape.norm_output else state)[None]])
        return torch.stack(said)

    def _last_state(self, embedded: torch.Tensor, features: torch.Tensor) -> torch.Tensor:
        """`[d]` what the last layer makes of the last entry."""
        head = self._model.head
        attending, states = head.enter(embedded, features)
        positions = torch.arange(embedded.shape[1], device=embedded.device)[None]
        for number, layer in enumerate(head.each_layer):
            attending = layer.input_layernorm(states) if number else attending
            states = layer.after(states, layer.self_attn.read(attending, positions, head.rotary, None)[0])
        last: torch.Tensor = states[0, -1]
        return last

    def _logits(self, state: torch.Tensor) -> torch.Tensor:
        rows, target = self._model.rows(state), self._model.target
        if self._ids is None:
            return target.of_texts(rows)
        whole = rows.new_full((target.width,), -torch.inf)
        whole[self._ids.to(rows.device)] = rows
        return whole


def _live(drafter: EagleDrafter, text: Scratch) -> Iterator[tuple[list[int], torch.Tensor]]:
    """At each root the drafted tokens and `[depth, vocab]` what they were chosen by: after a prompt, and after steps
    whose accepted tokens are the text's, whatever was drafted."""
    plan, first = Chain().at(DEPTH), STARTS[0]
    drafter.begin(Prefilled(text.ids[:first], text.hidden[:first]))
    for root, following in zip(STARTS, [*STARTS[1:], TOKENS], strict=True):
        tree = drafter.draft(text.ids[root], plan, Drawing(keep_logits=True))
        assert tree.chosen_from is not None and isinstance(tree.tokens, torch.Tensor)
        yield tree.token_list()[1:], tree.chosen_from.logits
        accepted = list(range(1, following - root))
        tree.tokens[accepted] = torch.tensor(text.ids[root + 1 : following], device=tree.tokens.device)
        drafter.commit(tree, accepted, text.hidden[root:following])
    drafter.begin(Prefilled(()))


def _ranks_agree(drafter: EagleDrafter, text: Scratch, allowed: float) -> bool:
    """Whether ranks along the text are those of drafting it from scratch; logits closer than `allowed` may swap."""
    first, offsets = STARTS[0], min(drafter.traits.deepest or DEPTH, DEPTH)
    recorded = RecordedText(text.ids[:first], np.array(text.ids[first:]), text.hidden[:-1])
    (annotation,) = drafter.annotate([recorded])
    for root in STARTS:
        following = text.ids[root + 1 : root + 1 + offsets]
        for offset, logits in enumerate(text.below(root, following), start=1):
            rank, score = int(annotation.ranks[root - first + offset, offset - 1]), logits[following[offset - 1]]
            least, most = (int((logits > score + sign * allowed).sum()) for sign in (1, -1))
            if not (rank == -1 if score == -torch.inf else least <= rank <= most):
                return False
    return True


def _apart(one: torch.Tensor, other: torch.Tensor) -> float:
    """The largest absolute difference; infinite where only one of them is never proposed."""
    both = one.isneginf() & other.isneginf()
    return float((one - other).masked_fill(both, 0.0).abs().max())
