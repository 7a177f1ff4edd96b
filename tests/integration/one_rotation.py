"""Rotate one PostgreSQL password in this process, between two marks that strace can see. Argument: an empty folder.

Prints the ids of the server's processes that belong to no session.
"""

from __future__ import annotations

import os
import sys
from pathlib import Path

from bench_stage import Stage


def main() -> None:
    stage = Stage(Path(sys.argv[1]))
    try:
        names = stage.adopted(1)
        stage.rotate(names)  # the first one makes files that every later one finds
        os.getsid(0)
        stage.rotate(names)
        os.getsid(0)
        print(*stage.background())
    finally:
        stage.close()


main()
