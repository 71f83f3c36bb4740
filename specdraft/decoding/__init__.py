"""The one decoding loop, its verifier, what goes together, and single prompts from Python."""
