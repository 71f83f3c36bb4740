"""What things cost on this machine: seconds of drafting a level and of verifying so many tokens, and whole methods.

May import: losslessness and everything below.
"""
