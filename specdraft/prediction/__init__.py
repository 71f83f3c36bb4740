"""Which draft nodes will be accepted, told before the target runs: temperatures, predictors, pruning policies.

May import: results, drafters, models, trees, sampling, config, errors.
"""
