"""The one decoding loop (`decode`), its verifier, what goes together (`fitting`), and single prompts from Python.

May import: results, drafters and everything below. Rules, shapes, drafters and sampling are values that the loop is
given.
"""
