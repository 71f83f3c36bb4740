"""The best configuration of an engine, from traces and costs: what each engine can be told, and which of that pays."""
