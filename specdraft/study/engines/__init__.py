"""Engines: each takes a unit of work of one pair and says row by row what came of it."""
