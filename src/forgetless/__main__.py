"""`python -m forgetless`: the command line without its script."""

from forgetless.cli import main

if __name__ == "__main__":
    main()
