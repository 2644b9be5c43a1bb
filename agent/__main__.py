"""`python -m agent` is `learnpack-agent`."""

import sys

from .cli import main

if __name__ == "__main__":
    sys.exit(main())
