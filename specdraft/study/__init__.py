"""A study: its combinations and plan, the engines that make its rows, its folder, and the run that fills it.

Data flows one way: overrides -> `plan` -> units of work (`engines.base.Work`) -> events of an engine -> `ledger` ->
tables. May import: replay and everything below. To add an engine: a file in `engines/` with a `run(work, pair)` that
yields events, and a line in `run.py`.
"""
