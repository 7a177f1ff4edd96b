"""One of several processes that rotate one secret: `python rotating.py TIMES ARGUMENT…` runs the command so often.

A locked or open secret (exit code 7) is tried again; what each rotation reported goes to stdout, one JSON line each.
"""

from __future__ import annotations

import contextlib
import io
import json
import random
import sys
import time

from vaultkeeper.cli.app import run


def main() -> None:
    times, arguments = int(sys.argv[1]), sys.argv[2:]
    rng = random.Random()
    refused = 0
    while times:
        said, complaint = io.StringIO(), io.StringIO()
        with contextlib.redirect_stdout(said), contextlib.redirect_stderr(complaint):
            code = run(arguments)
        if code == 7:
            refused += 1
            time.sleep(rng.uniform(0.05, 0.2) * 2 ** min(refused, 3))  # trying costs as much as half a rotation
            continue
        times, refused = times - 1, 0
        answer = json.loads(said.getvalue())
        sys.stdout.write(json.dumps({"code": code, "error": complaint.getvalue(), **answer["rotations"][0]}) + "\n")
        sys.stdout.flush()


if __name__ == "__main__":
    main()
