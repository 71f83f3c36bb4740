"""The command line's commands, one file a group: parse, call, show. No logic, and heavy libraries are imported where
they are used, so that `--help` is quick.

May import: everything below. To add a command: a function in a file here and a line in `app.py`; what commands share
(options, exit codes, where text goes) is in `options.py`.
"""
