"""The closed forms of speculative decoding (`formulas`), and what they say of a pair beside what it does
(`prediction`).

May import: study and everything below.
"""
