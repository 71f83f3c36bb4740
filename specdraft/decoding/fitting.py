"""What goes together: every reason why shape, rule, sampling, drafter and engine do not."""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from functools import cached_property
from math import inf

from specdraft import acceptance
from specdraft.acceptance import AcceptanceRule
from specdraft.drafters.base import DrafterTraits
from specdraft.errors import ConfigError
from specdraft.prediction.length import Constant, LengthPolicy
from specdraft.prediction.pruning import NoPruning, PruningPolicy, ScoredPolicy
from specdraft.sampling.distribution import Sampling
from specdraft.sampling.draft import AS_TARGET, Drawn
from specdraft.trees.made import Trees
from specdraft.trees.shapes import Limits, Plan, Shape
from specdraft.trees.shapes.base import Scorer
from specdraft.trees.shapes.fitted import FOLDS
from specdraft.trees.topology import Topology

COLD = 0.1  # below this temperature rare tokens can have probability 0 even in float64


@dataclass(frozen=True)
class Together:
    """What somebody wants to decode or replay, as plain values.

    Attributes:
        shape, budget: of the tree.
        vocab: how many tokens there are.
        engine: as asked for: `auto`, `live` or `replay`.
        prompts: how many prompts share what is fitted; None where nothing is scored.
        with_steps: whole steps are wanted, not only counts.
        traits: what the drafter can do; `drafter` is its name.
        scorer: what ranks the nodes of a tree that goes by a predictor.
        trees: where the tree is kept once it is made.
        pruning: which of its nodes are sent.
        length: how long the chain of each step is, at most the budget.
        cost_batch: texts that go together where `length` looks at costs.
        batch: texts that are decoded side by side.
        cache: what their keys and values are kept in.
        drawn: with which temperatures the drafter draws.
        encodes: the target is an encoder-decoder.
        served: the target is behind a server: its greedy texts can be had, and nothing else.
    """

    shape: Shape
    budget: int
    rule: AcceptanceRule
    sampling: Sampling
    vocab: int
    engine: str = "auto"
    prompts: int | None = None
    with_steps: bool = False
    traits: DrafterTraits = field(default_factory=DrafterTraits)
    drafter: str = "model"
    trees: Trees = field(default_factory=Trees, compare=False, repr=False)
    pruning: PruningPolicy = field(default_factory=NoPruning)
    scorer: Scorer | None = None
    length: LengthPolicy = field(default_factory=Constant)
    cost_batch: int = 1
    batch: int = 1
    cache: str = "auto"
    drawn: Drawn = AS_TARGET
    encodes: bool = False
    served: bool = False

    @property
    def most(self) -> int:
        """The budget, or what a length policy makes of it that is the same in every step."""
        return self.length.fixed(self.budget, self.cost_batch) or self.budget

    @property
    def limits(self) -> Limits:
        """Of the tree; raises `ConfigError` for a budget or a parameter out of range."""
        limits, traits = self.trees.limits(self.shape, self.most), self.traits
        if traits.deepest is None or not (self.shape.fitted and traits.by_offset):
            return limits
        return limits._replace(depth=min(limits.depth, traits.deepest))  # the ranks say how many levels there are

    @property
    def plan(self) -> Plan | None:
        """None for a fitted shape: its plan comes with the traces."""
        if self.shape.fitted:
            return None
        plan = self.trees.plan(self.shape, self.most)
        return plan if self.scorer is None or plan.nested is None else plan.nested.scored_by(self.scorer)

    @property
    def topology(self) -> Topology | None:
        """The one tree of every step; None where trees differ, or where it is not fitted yet."""
        return self.plan.topology if self.plan else None

    @property
    def dynamic(self) -> bool:
        """Whether trees differ from step to step; a fitted tree does not, whichever it will be."""
        return self.plan is not None and self.plan.dynamic

    @property
    def runs(self) -> str:
        """`live` or `replay`: `auto` replays where that is exact."""
        return "live" if self.engine == "live" or self.live_only else "replay"

    @cached_property
    def live_only(self) -> str | None:
        """Why this cannot be replayed, or None: the text of a lossless rule does not depend on the tree."""
        rule = self.rule
        if rule.replay == "none":
            return f"acceptance={rule.kind} has no replay"
        if why := self._depends_on_the_run():
            return why
        if self.plan and self.topology is None and self.plan.nested is None and not self.traits.from_tokens:
            return f"tree={self.shape.kind} differs from step to step, and a budget's trees are no parts of larger ones"
        if self.traits.by_offset and rule.replay == "record" and not self.sampling.greedy:
            return f"the distributions of drafter={self.drafter} depend on the distance from the root"
        return None if rule.replay == "rank" else self._expected_only()

    def _depends_on_the_run(self) -> str | None:
        """Why a step's tree is not known from the text before it."""
        if self.traits.lasting_state:
            return f"the state of drafter={self.drafter} outlasts a step, so a tree depends on the steps before it"
        if self.pruning.adapts:
            return "with pruning.online=true what is pruned depends on the steps before it"
        if why := self._length_depends():
            return why
        if self.shape.timed:
            return f"tree={self.shape.kind} with tree.max_step_s depends on how long drafting takes"
        return None

    def _length_depends(self) -> str | None:
        """Why lengths are not known along a recorded text."""
        length = self.length
        if not length.sizes:
            return None
        if self.traits.from_tokens:
            return f"with length={length.kind} drafter={self.drafter} looks up chains of another length in every step"
        if self.rule.replay != "rank" and not self.sampling.greedy:
            return (
                f"length={length.kind} goes by what was accepted and drafted, of which replayed "
                f"acceptance={self.rule.kind} has expected values only"
            )
        return None

    def _expected_only(self) -> str | None:
        """Why expected values do not do, or cannot be had."""
        rule, sampling = self.rule, self.sampling
        if self.with_steps and not sampling.greedy:
            return f"output.steps=true lists whole steps; replayed acceptance={rule.kind} has expected values only"
        if rule.draw == "without_replacement" and self.topology is not None:
            most = max(map(len, self.topology.children))
            cold = self.drawn.coldest(sampling) < COLD
            if most > 1 and (cold or sampling.top_p < 1 or 0 < sampling.top_k < most):
                return (
                    f"with these sampling settings a node can have fewer than {most} children, which only "
                    "drafting tells"
                )
        return None

    @property
    def misfit(self) -> str | None:
        """Why this cannot run at all, or None; where another rule would do, with the rules that fit."""
        if why := self._beyond_server():
            return why
        if why := self._wrong_length() or self._too_wide() or self._beyond_drafter():
            return why
        if why := self._wrong_rule():
            return why + self._fitting_rules()
        if self.traits.earlier and self.prompts is None:
            return f"drafter={self.drafter} reads what a study made of earlier prompts; one prompt alone has none"
        return self._wrong_engine() or (self._cannot_fit() if self.shape.fitted else None) or self._too_few_prompts()

    def _beyond_server(self) -> str | None:
        """Why a target behind a server does not do: only its greedy texts are asked for."""
        if not self.served:
            return None
        if self.runs == "live":
            why = self.live_only or "engine=live"
            return f"a served target is not decoded with, its texts are replayed (specdraft sweep): {why}"
        if not self.sampling.greedy:
            return (
                f"temperature={self.sampling.temperature:g} needs the target's whole distribution after each token, of "
                "which a server tells the most probable tokens; expected sampling=greedy"
            )
        return None

    def _wrong_engine(self) -> str | None:
        """Why texts cannot be decoded side by side, or with these caches."""
        fixed = self.cache in ("static", "graph")
        if self.encodes and (self.batch > 1 or fixed):
            asked, expected = (
                (f"batch={self.batch}", "batch=1") if self.batch > 1 else (f"cache={self.cache}", "cache=auto")
            )
            return f"{asked} is for decoder-only models, and the target is an encoder-decoder; expected {expected}"
        if self.runs == "replay" and (self.batch > 1 or fixed):
            key = f"batch={self.batch}" if self.batch > 1 else f"cache={self.cache}"
            return f"{key} is for engine=live: what is counted in replay does not depend on it"
        if self.batch > 1 and fixed:
            return f"batch={self.batch} has slots of its own for each text; expected cache=auto or cache=dynamic"
        return None

    def refuse(self) -> None:
        """Raise `ConfigError` unless this can run, or where a number is out of range."""
        self.sampling.check()
        self.rule.check()
        self.pruning.check()
        self.length.check()
        if why := self.misfit:
            raise ConfigError(why)

    def refuse_replayed_steps(self) -> None:
        """Raise `ConfigError` where traces do not tell what each step of one prompt was."""
        if self.shape.fitted:
            raise ConfigError(
                f"tree={self.shape.kind} is fitted to the traces of a whole study; "
                "specdraft trees show NAME --study DIR draws what became of it"
            )
        if self.shape.fits_scores:
            raise ConfigError(
                "tree.scores=calibrated is fitted to the traces of a whole study; with tree.temperature=T (specdraft "
                "fit temperature says which) one prompt's trees can be drawn"
            )
        if self.pruning.prunes:
            raise ConfigError(
                f"pruning={self.pruning.kind}: what is left of each tree of a recorded text is not drawn; "
                "specdraft generate shows it as it is decoded"
            )
        if self.length.sizes:
            raise ConfigError(
                f"length={self.length.kind}: chains of differing lengths along a recorded text are not drawn; "
                "specdraft generate shows them as they are decoded"
            )
        replace(self, engine="auto").refuse()
        if self.rule.replay != "rank":
            raise ConfigError(
                f"acceptance={self.rule.kind} draws its trees at random: a trace gives expected values, not trees; "
                "specdraft generate shows trees as they are drawn, acceptance=topk can be replayed at any temperature"
            )
        if self.live_only:
            raise ConfigError(f"{self.live_only}; specdraft generate shows it")

    def refuse_fit(self) -> None:
        """Raise `ConfigError` unless the shape's tree can be fitted, whatever is decoded with it."""
        if not self.shape.fitted:
            raise ConfigError(f"tree={self.shape.kind} is not fitted to traces; specdraft trees show draws it")
        if why := self._beyond_drafter() or self._cannot_fit():
            raise ConfigError(why)

    def _wrong_length(self) -> str | None:
        """Why the length policy does not go with the rest, whatever the rule draws."""
        length, shape = self.length, self.shape
        if length.usual:
            return None
        if shape.kind != "chain":
            return f"length={length.kind} sizes chains; tree={shape.label} is none (tree=chain)"
        if (why := length.misfit(self.budget, self.cost_batch)) or not length.sizes:
            return why
        if self.pruning.prunes:
            return f"length={length.kind} and pruning={self.pruning.kind} both say what is sent; leave one out"
        if length.hindsight and self.runs == "live":
            why = self.live_only or "engine=live decodes without one"
            return f"length={length.kind} knows what will be accepted, as only a recorded text does: {why}"
        return self._unsized_drafter()

    def _unsized_drafter(self) -> str | None:
        """Why the drafter cannot make chains as the policy asks for them."""
        length, traits = self.length, self.traits
        if length.watches and not traits.probabilities:
            return f"length={length.kind} looks at probabilities, and drafter={self.drafter} gives none"
        if length.may_be_empty and not traits.waits:
            return f"length={length.kind} can draft nothing in a step, and drafter={self.drafter} drafts in every one"
        if length.reads_entropy and traits.by_offset:
            return f"length={length.kind} reads the entropy after each token; drafter={self.drafter} goes by the offset"
        return None

    def _too_wide(self) -> str | None:
        if self.limits.width <= self.vocab or self.topology is None:
            return None
        return (
            f"{self.shape.label} needs {self.limits.width} different children of one node; the vocabulary has "
            f"{self.vocab} tokens"
        )

    def _beyond_drafter(self) -> str | None:
        """Why this drafter cannot make the tree, whatever the rule."""
        traits, shape = self.traits, self.shape
        if self.dynamic and not traits.probabilities and (why := self._no_own_tree()):
            return why
        if why := self._no_guesses():
            return why
        if self.pruning.prunes and not traits.probabilities:
            return f"pruning={self.pruning.kind} looks at probabilities, and drafter={self.drafter} gives none"
        copied = self.dynamic or (self.topology is not None and self.topology.is_span)
        deepest = traits.copies if traits.from_tokens and copied else traits.deepest
        if deepest is not None and self.limits.depth > deepest:
            levels = f"{self.limits.depth} levels" if self.topology is not None else f"up to {self.limits.depth} levels"
            lower = f" (tree.max_depth={deepest} fits)" if hasattr(shape, "max_depth") else ""
            return f"{shape.label} has {levels}; drafter={self.drafter} makes at most {deepest}{lower}"
        return self._predicted_by_offset()

    def _no_guesses(self) -> str | None:
        """Why a drafter of whole sequences has no tree of this shape."""
        most = self.traits.guesses
        if most is None:
            return None
        if most == 1 and (self.topology is None or not self.topology.is_chain):
            return f"{self.shape.label} is no chain, and drafter={self.drafter} proposes chains; expected tree=chain"
        if self.topology is None or any(len(children) > 1 for children in self.topology.children[1:]):
            return (
                f"{self.shape.label} branches below its root, and drafter={self.drafter} proposes whole sequences side "
                "by side; expected tree=chain, tree=beam or tree=wide"
            )
        if self.limits.width > most:
            return f"{self.shape.label} has {self.limits.width} sequences; drafter={self.drafter} makes at most {most}"
        return None

    def _predicted_by_offset(self) -> str | None:
        """Why no predictor scores this drafter's nodes: what it learns from is what a drafter says after tokens."""
        plan = self.plan.nested if self.plan else None
        by_plan = plan is not None and (plan.scorer is not None or plan.predictor is not None)
        by_policy = isinstance(self.pruning, ScoredPolicy) and self.pruning.scored_by.startswith("predictor")
        return self.no_predictor if by_plan or by_policy else None

    @property
    def no_predictor(self) -> str | None:
        """Why no predictor learns of this drafter, or None."""
        if not self.traits.by_offset:
            return None
        return (
            f"a predictor reads what a drafter says after each token; drafter={self.drafter} proposes by the distance "
            "from the root"
        )

    def _no_own_tree(self) -> str | None:
        """Why a drafter without probabilities has no tree of this shape."""
        kind, plan = self.shape.kind, self.plan.nested if self.plan else None
        if not self.traits.counts or plan is None or plan.margin < inf or plan.beam is not None:
            return f"tree={kind} chooses nodes by their probability, and drafter={self.drafter} gives none"
        if plan.scorer or plan.predictor or plan.temperature != 1 or plan.top_p < 1:
            return (
                f"{self.shape.label} ranks nodes by probabilities, and drafter={self.drafter} goes by counts; expected "
                "tree.scores=raw and no tree.candidate_top_p"
            )
        return None

    def _wrong_rule(self) -> str | None:
        """Why another rule might do."""
        if why := self.rule.misfit(self.sampling, chain=self.topology is not None and self.topology.is_chain):
            return why
        if why := self._wrong_children() or self._undrawable() or self._drawn_and_pruned() or self._draws_nothing():
            return why
        if self.engine == "replay" and self.live_only:
            return f"{self.live_only}; it needs engine=live or engine=auto"
        return None

    def _wrong_children(self) -> str | None:
        """Why the rule cannot have this tree's children drawn at random."""
        shape, kind = self.shape, self.rule.kind
        if self.rule.draw == "rank":
            return None
        if shape.fitted:
            return f"tree={shape.kind} is fitted to draft ranks, and acceptance={kind} needs children drawn at random"
        if self.topology is None:
            return (
                f"tree={shape.kind} chooses nodes by their probability, and acceptance={kind} needs children "
                "drawn at random"
            )
        if not self.topology.sibling_closed:
            return f"{shape.label} skips child ranks, and acceptance={kind} draws a node's children one after another"
        return None

    def _drawn_and_pruned(self) -> str | None:
        """Why pruning would change the law of the text: a child that was drawn at random may not be left out for what
        it is (Sun et al. 2023; appendix A of DSpark has a counterexample)."""
        if not self.pruning.prunes or self.rule.draw == "rank":
            return None
        return (
            f"pruning={self.pruning.kind} looks at drawn children, and acceptance={self.rule.kind} draws them at "
            "random: leaving one out for what it is changes the law of the text"
        )

    def _draws_nothing(self) -> str | None:
        """Why the drafter's temperature would have no effect."""
        if not self.drawn.temperatures or not (self.sampling.greedy or self.rule.draw == "rank"):
            return None
        what = "sampling.temperature=0 decodes greedily"
        if not self.sampling.greedy:
            what = f"acceptance={self.rule.kind} takes the drafter's best children by rank"
        return f"sampling.draft_temperature={self.drawn.said} has no effect: {what}; leave it out"

    def _undrawable(self) -> str | None:
        """Why the drafter cannot do what the rule needs."""
        rule, traits = self.rule, self.traits
        if rule.draw != "rank" and not traits.draws:
            return f"acceptance={rule.kind} needs children drawn at random, and drafter={self.drafter} only ranks them"
        if rule.needs_draft_probs and not traits.probabilities:
            return f"acceptance={rule.kind} needs the drafter's probabilities, and drafter={self.drafter} gives none"
        return None

    def _cannot_fit(self) -> str | None:
        """Why there can be no fitted tree of this size on these prompts."""
        shape, limits = self.shape, self.limits
        if limits.width > self.vocab:
            return (
                f"{shape.label} may have {limits.width} children of one node; the vocabulary has {self.vocab} "
                "tokens: lower tree.max_children"
            )
        if limits.room < limits.nodes:
            return f"{shape.label} has room for {limits.room} nodes only; budget={limits.nodes} does not fit"
        return None

    def _too_few_prompts(self) -> str | None:
        """Why nothing can be fitted on one half of the prompts and scored on the other one."""
        shape = self.shape
        fits = (shape.fitted or shape.fits_scores) and not shape.in_sample
        if fits and self.prompts is not None and self.prompts < FOLDS:
            return f"tree={shape.label} is fitted on half of the prompts; there is only {self.prompts}"
        return None

    def _fitting_rules(self) -> str:
        """The rules, with their default parameters, that go with the rest; nothing where none does."""
        others = (replace(self, rule=rule()) for rule in acceptance.registry().values())
        fitting = [other.rule.kind for other in others if other._wrong_rule() is None]
        return f"; rules that fit: {', '.join(fitting)}" if fitting else ""
