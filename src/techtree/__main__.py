"""`python -m techtree`: the same program as the command `techtree`."""

from techtree.cli.main import main

if __name__ == "__main__":
    raise SystemExit(main())
