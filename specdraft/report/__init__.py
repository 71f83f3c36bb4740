"""A study as figures and a report, from its result files only."""
