"""What a drafter becomes once a pair is loaded: here torch is imported."""
