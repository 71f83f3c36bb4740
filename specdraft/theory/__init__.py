"""The closed forms of speculative decoding, and what they say of a pair."""
