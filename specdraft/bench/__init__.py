"""What things cost on this machine: seconds of drafting a level and of verifying so many tokens.

May import: losslessness and everything below.
"""
