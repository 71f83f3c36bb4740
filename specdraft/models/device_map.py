"""Which of a model's modules goes to which of several devices: blocks in their order, devices about equally full."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

import torch

from specdraft.models.placement import cards_of
from specdraft.models.spec import ModelSpec


def device_map(spec: ModelSpec, skeleton: torch.nn.Module) -> dict[str, torch.device]:
    """The devices of a model that is divided over so many cards, as `transformers` reads them. Raises `ConfigError`
    where there are fewer."""
    return divided(skeleton, cards_of(spec))


def divided(model: torch.nn.Module, devices: Sequence[torch.device]) -> dict[str, torch.device]:
    """Module -> device. The same for the same model, whatever is free.

    A module goes where the middle of its weights falls when all weights stand in a row. What has no weights goes to
    the first device, as the embeddings do; what shares weights goes where they are.

    Args:
        model: any module; those in its outermost lists are not taken apart.
        devices: in the order in which tokens pass through them.
    """
    parts = [*_parts(model, "")]
    of_whole = sum(parameter.numel() for parameter in model.parameters())
    where: dict[int, torch.device] = {}
    placed: dict[str, torch.device] = {}
    before = 0
    for name, part in parts:
        own = {id(parameter): parameter.numel() for parameter in part.parameters()}
        new = sum(numbers for parameter, numbers in own.items() if parameter not in where)
        shared = next((where[parameter] for parameter in own if parameter in where), None)
        middle = (before + new / 2) / of_whole if new else 0.0
        device = shared or devices[min(len(devices) - 1, int(middle * len(devices)))]
        placed[name], before = device, before + new
        where |= dict.fromkeys(own, device)
    return placed


def _parts(module: torch.nn.Module, name: str) -> Iterator[tuple[str, torch.nn.Module]]:
    """What a model is divided into, in its order: the blocks of its lists, and whatever holds no list."""
    for own, child in module.named_children():
        path = f"{name}.{own}" if name else own
        if isinstance(child, torch.nn.ModuleList):
            yield from ((f"{path}.{number}", block) for number, block in enumerate(child))
        elif any(isinstance(below, torch.nn.ModuleList) for below in child.modules()):
            yield from _parts(child, path)
        else:
            yield path, child
