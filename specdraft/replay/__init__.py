"""Trees walked over traces: what each would have done, without a model.

`static` counts exactly by draft ranks, `expected` weighs by a rule's own record, `best_first` walks recorded trees;
`fit` resolves fitted shapes to trees. May import: bench and everything below. A new kind of plan registers its walk in
`replayer`.
"""
