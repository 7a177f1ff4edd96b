"""The command line: the only place that prints and exits. One file per command, or per small family of commands.

Data goes to stdout, talk to stderr. A command returns its exit code; `app.run` turns everything else into one.
What a command needs is imported inside it: `--help` and completion must not pay for a database driver.
"""

from __future__ import annotations

import gc
import sys
from typing import NoReturn

_GC_THRESHOLD = 20_000  # new objects between two looks for cycles; Python's 700 looks hundreds of times during imports


def main() -> NoReturn:
    """The console script."""
    gc.set_threshold(_GC_THRESHOLD)
    from vaultkeeper.cli.app import run

    code = run(sys.argv[1:])
    gc.freeze()  # an interpreter that ends would look through all modules several times: a quarter of `status`
    sys.exit(code)
