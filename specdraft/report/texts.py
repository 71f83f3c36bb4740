"""Texts that every report has: the question, how metrics are defined, limits and references."""

from __future__ import annotations

from specdraft.report.words import Name, say
from specdraft.results.metrics import MOST_LOOPING

QUESTION = (
    "A large language model (the target) writes one token per pass. A cheap drafter can propose a small tree of "
    "next tokens, and one pass "
    "of the target checks all of them: the tokens that fit are kept, so a pass yields more than one token."
)
ASKED = (  # after "which"
    "shape of tree, at each size (node budget), gets the most tokens accepted, and what is that worth in time?"
)
METRICS = (
    (
        "block_efficiency",
        "(accepted_tokens + bonus_tokens) / steps: tokens per verification step, that is, per pass of the target "
        "over a "
        "tree. Plain decoding: 1.",
    ),
    ("acceptance_length", "accepted_tokens / steps: draft tokens only, the bonus is not counted."),
    ("acceptance_rate", "accepted_tokens / drafted_tokens: the share of draft tokens that are kept."),
    (
        "alpha",
        "mean overlap of the two models' distributions along the text: the chance that one draft token is accepted.",
    ),
    (
        "conditional_rate, marginal_rate",
        "by depth: accepted / reached, and accepted / all steps of the combination.",
    ),
    (
        "rank",
        "a child's place among its siblings: 1 is the drafter's first choice (under sampling: drawn first). accepted / "
        "reached, where reached counts the steps that accepted its parent.",
    ),
    (
        "tokens_per_s, speedup",
        "measured, live decoding only; speedup is the time of plain decoding in the same run over wall_s.",
    ),
    (
        "est_tokens_per_s, est_speedup",
        "estimates from the counts and the pair's measured cost of a draft level and of verifying n tokens. "
        "Never measurements.",
    ),
    (
        "nll, perplexity",
        "of the text under the target at temperature 1, in nats a token, and its exponential: live decoding only. "
        "plain_nll is that of plain decoding's texts of the same prompts, nll_over_plain the paired difference.",
    ),
    (
        "loop_share",
        f"share of tokens that end the third or later occurrence of a 4-gram: above {MOST_LOOPING}, acceptance "
        "measures loops.",
    ),
    (
        "_lo, _hi",
        "95 % intervals over prompts (not over steps), from the study's own files: Fieller's for a ratio, the "
        "jackknife's for a difference, widened for skewness, stratified by category. Fewer than 5 prompts, or prompts "
        "that are all alike, have none.",
    ),
)
LIMITS = (
    say(
        "Leaders are picked on one half of the prompts and measured on the other where the numbers of single prompts "
        "are kept. Nothing is corrected for the number of comparisons: of many leads with a 95 % interval above 0, "
        "some can be luck."
    ),
    say(
        "Intervals say how far the numbers carry over to other prompts of the same kind, not to other models, "
        "languages or hardware."
    ),
    say("More tokens per pass is not the same as faster: a bigger tree costs more to draft and to check."),
    say(
        "The rule {} is not lossless: its text is not the target's own. Compare its counts with care.",
        Name("typical"),
    ),
)
REFERENCES = (
    (
        "Leviathan, Kalman, Matias 2023: Fast Inference from Transformers via Speculative Decoding (speculative "
        "decoding; the closed form for chains)."
    ),
    "Chen et al. 2023: Accelerating Large Language Model Decoding with Speculative Sampling.",
    "Miao et al. 2024: SpecInfer (token trees, recursive rejection).",
    "Cai et al. 2024: Medusa (fixed trees, typical acceptance).",
    "Chen et al. 2024: Sequoia (the best tree for an acceptance vector, sampling without replacement).",
    "Sun et al. 2023: SpecTr (block efficiency, k-seq). Sun et al. 2024: block verification.",
    "Li et al. 2024: EAGLE and EAGLE-2. Stern et al. 2018: blockwise parallel decoding.",
    "Wilson 1927, Kish 1965: the interval of a share; what steps of one prompt are worth (design effect).",
    "Machado, Oliveira, Fernandes 2009: A Physiologically-based Model for Simulation of Color Vision Deficiency (the "
    "colours of shapes are told apart under it).",
)
