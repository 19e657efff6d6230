"""`python -m ddps` is the command `ddps`; so `torchrun -m ddps` is that command in several processes."""

import sys

from .cli.main import main

if __name__ == "__main__":
    sys.exit(main())
