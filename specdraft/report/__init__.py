"""From a results folder to a page, pictures and Markdown: what the tables support, said and drawn.

May import: viewer and everything below; it reads files only, never models. To add a figure: a function in a figures
file and a line in the list of figures.
"""
