"""What is recorded along a target's own text so that trees can be replayed: the store, the recorder, what each rule and
each drafter keeps, and the library of all.

May import: decoding and everything below. Nothing here names a rule or a drafter: they say themselves what to keep.
"""
