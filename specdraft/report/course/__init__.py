"""The course report: one structure of sections, figures and tables, filled from result files, with a catalogue of texts
for each language.

May import: what `report` may. To add a language: a file in `texts` with the keys of `en.yaml`.
"""
