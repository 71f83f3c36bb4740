"""How decoding is known to be lossless: rules enumerated on small worlds, live text against its target, the
certificate.

May import: traces and everything below.
"""
