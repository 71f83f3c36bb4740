"""How decoding is known to be lossless: rules enumerated, live text against its target, the certificate."""
