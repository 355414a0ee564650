"""Studies of their own, and the pages, tables and figures made of committed runs: each `python -m studies.NAME`.

Commands run from the repository's root. They read `results/`, and write `docs/` and the tables of README.md.
"""
