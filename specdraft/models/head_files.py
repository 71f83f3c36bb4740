"""Weights that are no model: heads, which read a target's states and share its tokenizer."""

from __future__ import annotations

from dataclasses import dataclass, field
from functools import cached_property
from typing import Any

from specdraft.models.files import ModelFiles


@dataclass(frozen=True, eq=False)
class HeadFiles(ModelFiles):
    """The folder of a head: what a model is asked beside its weights, its target answers.

    Attributes:
        target: whose states it reads.
    """

    target: ModelFiles = field(kw_only=True)

    def check_supported(self) -> None:
        """See `ModelFiles.check_supported`: whoever finds a head looks at its tensors."""

    @cached_property
    def config(self) -> Any:
        """See `ModelFiles.config`."""
        return self.target.config

    @cached_property
    def tokenizer(self) -> Any:
        """See `ModelFiles.tokenizer`."""
        return self.target.tokenizer

    @cached_property
    def known_ids(self) -> int:
        """See `ModelFiles.known_ids`."""
        return self.target.known_ids

    @cached_property
    def eos_ids(self) -> frozenset[int]:
        """See `ModelFiles.eos_ids`."""
        return self.target.eos_ids

    @cached_property
    def stored_dtype(self) -> str | None:
        """See `ModelFiles.stored_dtype`: it is held as the target is."""
        return self.target.stored_dtype

    @cached_property
    def context_length(self) -> int | None:
        """See `ModelFiles.context_length`: it has no positions."""
        return None

    @cached_property
    def rotary_switch(self) -> int | None:
        """See `ModelFiles.rotary_switch`."""
        return None

    @cached_property
    def quantised(self) -> bool:
        """See `ModelFiles.quantised`."""
        return False

    @cached_property
    def dated(self) -> bool:
        """See `ModelFiles.dated`."""
        return False
