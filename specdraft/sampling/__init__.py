"""From logits to the one distribution that is sampled from, and the only source of randomness.

May import: config, prompts, errors.
"""
