"""Traces: what is recorded along a target's own text so that trees can be replayed without the models."""
