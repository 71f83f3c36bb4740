"""Token ids of a prompt, as many as fit the context with what is decoded after them."""

from __future__ import annotations

from specdraft.config import Settings
from specdraft.errors import PromptError
from specdraft.models.pair import PairFiles


def encode_to_fit(files: PairFiles, text: str, chat_template: str, settings: Settings, depth: int) -> list[int]:
    """Token ids of a prompt, cut to `max_prompt_tokens` on the left.

    Raises:
        PromptError: there are no tokens, or they do not fit the context with what is decoded after them.
    """
    ids = files.encode(text, chat_template)[-(settings.max_prompt_tokens or 0) :]
    limit, after = files.context_length, settings.max_new_tokens + depth
    if limit is not None and len(ids) + after > limit:
        raise PromptError(
            f"{len(ids)} tokens + max_new_tokens={settings.max_new_tokens} + {depth} draft levels exceed the "
            f"context of {limit} "
            f"of pair {files.spec.name}"
            + (f"; max_prompt_tokens={limit - after} would cut it on the left" if limit > after else "")
        )
    return ids
