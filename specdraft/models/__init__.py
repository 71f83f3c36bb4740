"""Models: find, check and load a pair; the cached tree-forward that drafter and verifier share."""
