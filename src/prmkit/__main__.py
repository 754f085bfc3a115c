"""`python -m prmkit`: the `prmkit` command, by the interpreter that is named."""

import sys

from prmkit.cli.main import main

if __name__ == "__main__":
    sys.exit(main())
