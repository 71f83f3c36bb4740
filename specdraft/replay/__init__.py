"""Trees walked over traces: what each would have done, without a model."""
