"""Tree attention: one problem (queries of a root and its draft nodes, a prefix that all of them see, a tail of which
each sees its ancestors), a reference in float32, and ways to compute it, one file each in `contestants`.

May import: trees. Letters in shapes: B batch, H heads, K key-value heads, G = H / K heads that share one, N = n + 1
queries (the root and n draft nodes), S prefix, T = S + N, D head dimension.
"""
