"""The command line: the only place that prints and exits. One file per command, or per small family of commands.

Data goes to stdout, talk to stderr. A command returns its exit code; `app.run` turns everything else into one.
What a command needs is imported inside it: `--help` and completion must not pay for a database driver.
"""

from __future__ import annotations

import sys
from typing import NoReturn


def main() -> NoReturn:
    """The console script."""
    from vaultkeeper.cli.app import run

    sys.exit(run(sys.argv[1:]))
