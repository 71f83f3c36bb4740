"""Studies decode a lot: the tiny pair has a layer less here, which is a third of a forward."""

from support.smaller_pair import tiny_pair, tiny_pair_folders

__all__ = ["tiny_pair", "tiny_pair_folders"]
