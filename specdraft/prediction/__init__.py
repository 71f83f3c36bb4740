"""Which draft nodes will be accepted, told before the target runs."""
