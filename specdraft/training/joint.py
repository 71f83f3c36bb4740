"""Medusa-2: a target learns together with its heads, towards what it said before (Cai et al. 2024, section 2.2.2).

The paper's joint loss with self-distillation: the target's own distribution, of recorded states, is what both the
trained target and its heads are asked for, `L_target + heads_weight * sum_k decay^k L_k`; the heads' weight rises with
the learning rate's warm-up, as in its second stage.
"""

from __future__ import annotations

import copy
from collections.abc import Sequence
from typing import Any

import torch
import torch.nn.functional as F

from specdraft.drafters.pair import Pair
from specdraft.models.output_layer import OutputLayer
from specdraft.training.loop import Objective
from specdraft.training.medusa import blocks_of, new_heads
from specdraft.training.settings import MedusaTraining
from specdraft.training.states import TextStates
from specdraft.training.windows import Teacher, Window, Windows

TARGET = "target."  # stands before the names of its parameters


def joint_objective(pair: Pair, states: TextStates, asked: MedusaTraining) -> tuple[Any, Objective]:
    """A copy of the target that learns, and the objective: its parameters, named behind `TARGET`, and its heads'."""
    output = OutputLayer(pair.target, pair.files.target.spec.path)  # what learns is a copy: it stays as it is
    model = copy.deepcopy(pair.target.model).float().train()
    heads = new_heads(asked.heads, asked.blocks, output.width, pair.target.device)
    windows = Windows(states, asked.positions, pair.target.vocab, pair.target.device, asked.seed)
    learning = Joint(model, blocks_of(heads, asked), Teacher(output, pair.target.vocab, states), output, asked)

    def step(number: int) -> dict[str, torch.Tensor]:
        rise = min(1.0, (number + 1) / max(1, round(asked.warmup * asked.steps)))
        parts = [learning.learn(part, counts, rise) for part, counts in windows.of_step(number, asked.heads)]
        target, of_heads = (torch.stack(losses).sum() for losses in zip(*parts, strict=True))
        return {"loss": target + asked.heads_weight * rise * of_heads, "target": target, "heads": of_heads}

    own = {f"{TARGET}{name}": parameter for name, parameter in model.named_parameters()}
    return model, Objective({**heads, **own}, step, dict.fromkeys(own, asked.target_lr))


class Joint:
    """The joint loss of a target and its heads.

    Args:
        model: the target that learns.
        heads: the blocks of each head.
        teacher: what the target said before.
        output: how its logits are capped.
        asked: the weights of the losses.
    """

    def __init__(self, model: Any, heads: Any, teacher: Teacher, output: OutputLayer, asked: MedusaTraining) -> None:
        self._model, self._heads, self._teacher, self._output, self._asked = model, heads, teacher, output, asked

    def learn(self, part: Window, counts: Sequence[int], rise: float) -> tuple[torch.Tensor, torch.Tensor]:
        """The target's loss and its heads' at the places of some texts; gradients are added.

        Args:
            part: the texts.
            counts: places of the whole step, and those of them that so many tokens follow: 1, 2, ...
            rise: what the heads' loss counts by now.
        """
        states = self._model.base_model(part.ids, use_cache=False).last_hidden_state[part.row, part.column]
        wanted = self._teacher.probs(part.place)
        target = self._loss(states, wanted) / counts[0]
        of_heads = torch.zeros((), device=states.device)
        for number, blocks in enumerate(self._heads):
            here = torch.nonzero(part.left > number)[:, 0]  # a place later in the same text is there
            inside = states[here]
            for block in blocks:
                inside = block(inside)
            loss = self._loss(inside, wanted[here + 1 + number]) / max(1, counts[1 + number])
            of_heads = of_heads + self._asked.decay**number * loss
        torch.autograd.backward(target + self._asked.heads_weight * rise * of_heads)
        return target.detach().cpu(), of_heads.detach().cpu()

    def _loss(self, states: torch.Tensor, wanted: torch.Tensor) -> torch.Tensor:
        logits = self._output.capped(self._model.get_output_embeddings()(states))[:, : wanted.shape[1]]
        return F.cross_entropy(logits, wanted, reduction="sum")
