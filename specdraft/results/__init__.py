"""Results: files, journal, tables, intervals, comparisons, manifest, and the one place that defines a metric."""
