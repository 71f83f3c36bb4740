"""What people look at: steps and trees in the terminal and as a page that needs no network, tables, progress.

May import: theory, study and everything below; nothing here decides a number.
"""
