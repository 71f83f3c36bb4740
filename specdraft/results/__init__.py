"""Results: the files, the journal, tables, intervals, comparisons, the manifest, and `metrics`, the one place that
defines a metric.

May import: drafters and everything below.
"""
