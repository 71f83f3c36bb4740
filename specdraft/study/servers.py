"""What a plan knows of targets behind servers before anything runs."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from specdraft.config import Settings
from specdraft.decoding.ending import Ending
from specdraft.drafters.on_demand import Memory
from specdraft.drafters.pair import EncodedPrompt, PairFiles
from specdraft.errors import ConfigError, ServerError
from specdraft.models.files import ModelFiles
from specdraft.models.server.identity import Identity
from specdraft.models.server.served_files import ServedFiles
from specdraft.prompts import Prompt
from specdraft.study.combination import Combination
from specdraft.traces.library import unrecorded
from specdraft.traces.store import TraceStore

CHATS_WANTED = (
    "api=chat asks with messages: expected a chat template in pair.target.path and prompts.chat_template=auto"
)


def know_server(target: ModelFiles, memory: Memory) -> None:
    """Which model is served; of a server that does not answer, what it was when it did: texts that are recorded can be
    replayed without it.

    Raises:
        ServerError: it does not answer, and never did.
    """
    if not isinstance(target, ServedFiles):
        return
    about = _about(target)
    kept = memory.recall(about)
    try:
        now = target.identity.as_dict()
    except ServerError as error:
        if kept is None:
            raise
        target.recall(Identity(**kept), error)
        return
    if now != kept:
        memory.keep(about, now)


def _about(target: ServedFiles) -> dict[str, Any]:
    server = target.spec.server
    return {"kind": "server", "url": server.url, "model": server.model, "tokenizer": target.texts_digest}


def check_server(
    files: PairFiles,
    prompts: Sequence[Prompt],
    encoded: Mapping[str, EncodedPrompt],
    asked: Sequence[Combination],
    store: TraceStore,
) -> None:
    """Ask a server that texts are wanted of for one token. Of later turns nobody knows yet what is before them.

    Raises:
        ServerError: it cannot be asked, and there are texts that are not recorded.
        ConfigError: it is to be asked by chat, and there are no messages.
    """
    target, first = files.target, asked[0]
    if not isinstance(target, ServedFiles):
        return
    known = {prompt.prompt_id: encoded[prompt.prompt_id].ids for prompt in prompts if not prompt.earlier}
    by_chat = target.spec.server.api == "chat"
    if by_chat and not files.reader(first.prompts.chat_template).templated:
        raise ConfigError(f"{target.key}.server.{CHATS_WANTED}")
    endings = {c.settings.max_new_tokens: Ending(c.settings.max_new_tokens, target.eos_ids) for c in asked}
    missing = {name for ending in endings.values() for name in unrecorded(target, known, ending, store)}
    if not missing:
        return
    if not target.reached:
        raise ServerError(f"{target.out_of_reach}; {len(missing)} of {len(known)} texts are not recorded yet")
    target.model.probe(known[min(missing, key=lambda name: len(known[name]))])


def refuse_beside_server(settings: Settings, combinations: Iterable[Combination]) -> None:
    """Raise `ConfigError` for what takes the weights of a target that is served elsewhere."""
    served = [combination for combination in combinations if combination.pair.target.spec.served]
    if served and settings.certify:
        raise ConfigError("certify=true decodes live, and pair.target.server gives recorded texts only; leave it out")
    for combination in served if settings.cost.table is None else ():
        for group in ("pruning", "length"):
            if (policy := getattr(combination, group)).needs_costs:
                raise ConfigError(
                    f"{group}={policy.kind} weighs costs, which are not measured of a served target; expected "
                    "cost.table=FILE"
                )


def notes_on_servers(combinations: Iterable[Combination]) -> list[str]:
    """A line for each served target."""
    found = {c.pair.target: c for c in combinations if isinstance(c.pair.target, ServedFiles)}
    return [line for target, c in found.items() for line in _notes(target, c)]


def _notes(target: ServedFiles, combination: Combination) -> Iterable[str]:
    if not target.reached:
        yield f"{target.out_of_reach}: what it said before is replayed"
    if combination.settings.cost.table is None and combination.settings.cost.measure != "off":
        yield (
            f"{target.key}.server: times of {target.identity.model} are not estimated, so the est_ columns are empty "
            "(cost.table=FILE gives costs)"
        )
