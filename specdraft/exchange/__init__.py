"""Figures that come from other engines and go to other programs: `formats/` reads what they print, `explain` says what
tells their figures from ours, `exports/` writes a study in their forms.

May import: study and everything below. To add a format: a file in `formats/` (or `exports/`), see there.
"""
