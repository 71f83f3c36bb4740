"""What planning finds out of models' folders, kept with the traces: the next plan does without `transformers`."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence

from specdraft.drafters.on_demand import Memory, checked_by
from specdraft.drafters.pair import EncodedPrompt, PairFiles
from specdraft.prompts import Prompt
from specdraft.study.combination import Combination, encode_for


def check_once(files: PairFiles, memory: Memory) -> None:
    """`PairFiles.check`, which is left out of folders that passed it as they are. Raises as that does."""
    about = {"kind": "pair", "models": [model.outline for model in files.models], "checked_by": checked_by()}
    if kept := memory.recall(about):
        for model, facts in zip(files.models, kept["models"], strict=True):
            model.remember(facts)
        files.drafter.check_target(files.target)
        return
    files.check()
    memory.keep(about, {"models": [model.remembered() for model in files.models]})


def encode_once(
    files: PairFiles, prompts: Sequence[Prompt], asked: Sequence[Combination], memory: Memory
) -> dict[str, EncodedPrompt]:
    """`encode_for`, which has the token ids from an earlier plan with the same prompts. Raises as that does."""
    settings, template = asked[0].settings, asked[0].prompts.chat_template
    about = {
        "kind": "prompts",
        "reader": files.target.texts_digest,
        "prompts": hashlib.sha256(repr(prompts).encode()).hexdigest(),
        "chat_template": template,
        "max_prompt_tokens": settings.max_prompt_tokens,
        "checked_by": checked_by(),
    }
    kept = memory.recall(about)
    files.encoded.update({key: EncodedPrompt(*prompt) for key, prompt in (kept or {}).items()})
    encoded = encode_for(files, prompts, asked)
    if kept is None:
        memory.keep(about, files.encoded)
    return encoded
