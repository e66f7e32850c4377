"""The command line, one file for each family of commands. `gateway/__main__.py` puts them together.

Nothing here is imported at the top but Typer: each command imports what it needs when it runs, so
that `gateway --help` is there at once.
"""
