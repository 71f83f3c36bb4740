"""A study: its combinations, its plan, its engines, its folder, and the run that fills it."""
