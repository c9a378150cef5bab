"""`python -m shardtrain`, the same as the command `shardtrain`."""

import sys

from shardtrain.cli.start import main

if __name__ == "__main__":
    sys.exit(main())
