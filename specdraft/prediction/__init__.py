"""Which draft nodes will be accepted, said before the target runs: rows to learn from, predictors, calibration, scores.

Two things are never mixed: *conditional* is P(node accepted | its parent was), *survival* P(node accepted), the product
of the conditionals from the root down. To add a model, write a dataclass in `predictors` and name it in its registry.
May import: results, drafters, models, trees, sampling and what is below these.
"""
