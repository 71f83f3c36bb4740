"""Models: find, check and load one; the one forward (`language_model`) and its caches; the load-time self-check.

May import: trees, sampling, config, prompts, errors. No model is patched, no modelling file copied.
"""
