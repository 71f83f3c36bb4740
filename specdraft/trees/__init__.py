"""Draft trees: the topology, the tokens on it, one verification step, the best tree for given acceptance, other
projects' words for trees, and the shapes.

May import: sampling, config, prompts, errors.
"""
