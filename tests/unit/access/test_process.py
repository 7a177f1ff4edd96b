from __future__ import annotations

import contextlib
import json
import os
import select
import sys
import time
from collections.abc import Callable
from pathlib import Path

import pytest

from vaultkeeper.access import process
from vaultkeeper.errors import ConfigurationInvalid
from vaultkeeper.ports import Deadline


def soon(seconds: float = 60) -> Deadline:
    return Deadline(time.monotonic() + seconds)


class Until(Deadline):
    """Is over when something has come true, or after the longest time that a machine may take for it."""

    def __init__(self, true: Callable[[], bool]) -> None:
        self.__dict__.update(true=true, latest_s=time.monotonic() + 60)

    @property
    def at_monotonic_s(self) -> float:
        return 0.0 if self.__dict__["true"]() else min(time.monotonic() + 0.05, self.__dict__["latest_s"])


def python(code: str, *words: str) -> list[str]:
    return [sys.executable, "-I", "-c", code, *words]


def test_a_program_gets_stdin_and_its_output_and_code_come_back() -> None:
    ran = process.run(
        python("import sys; d = sys.stdin.buffer.read(); sys.stdout.buffer.write(d[::-1]); sys.exit(3)"),
        soon(),
        stdin=b"abc" * 100_000,
    )
    assert (ran.code, ran.stdout) == (3, b"cba" * 100_000)


def test_a_program_sees_no_environment_directory_or_descriptor_of_ours(tmp_path: Path) -> None:
    fd = os.open(tmp_path, os.O_RDONLY)
    os.set_inheritable(fd, True)
    code = "import os, json; print(json.dumps([dict(os.environ), os.getcwd(), sorted(os.listdir('/proc/self/fd'))]))"
    os.environ["VK_CANARY"] = "canary"
    try:
        environment, folder, open_fds = json.loads(process.run(python(code), soon()).stdout)
    finally:
        del os.environ["VK_CANARY"]
        os.close(fd)
    assert {k: v for k, v in environment.items() if k != "LC_CTYPE"} == process.ENVIRONMENT
    assert folder == "/"
    assert open_fds == ["0", "1", "2", "3"]  # 3 is the listing itself


def test_a_passed_descriptor_arrives() -> None:
    fd = os.memfd_create("x", 0)
    os.write(fd, b"handed over")
    ran = process.run(python(f"print(open('/proc/self/fd/{fd}').read())"), soon(), pass_fds=[fd])
    os.close(fd)
    assert ran.stdout == b"handed over\n"


def test_a_program_that_does_not_end_is_killed_with_its_children(tmp_path: Path) -> None:
    pids = tmp_path / "pids"
    pids.touch()
    code = "import os, sys, time\nchild = os.fork()\nopen(sys.argv[1], 'a').write(f'{os.getpid()} ')\ntime.sleep(600)\n"
    with pytest.raises(process.ProcessError) as caught:
        process.run(python(code, str(pids)), Until(lambda: len(pids.read_text().split()) == 2))
    assert caught.value.started
    both = pids.read_text().split()
    assert len(both) == 2
    for pid in both:
        with contextlib.suppress(ProcessLookupError):
            fd = os.pidfd_open(int(pid))
            assert select.select([fd], [], [], 20)[0], "it lives"
            os.close(fd)


def test_a_grandchild_that_keeps_the_pipes_is_not_waited_for() -> None:
    code = "import os, time\nif os.fork() == 0:\n    time.sleep(30)\n    os._exit(0)\nprint('done', flush=True)"
    assert process.run(python(code), soon(25)).stdout == b"done\n"


def test_a_flood_is_cut_off() -> None:
    with pytest.raises(process.ProcessError):
        process.run(python("while True: print('x' * 65536)"), soon(), limit_bytes=1 << 20)


def test_a_program_that_does_not_read_its_stdin_is_no_error() -> None:
    assert process.run(python("import sys; sys.stdin.close()"), soon(), stdin=b"x" * 10_000_000).code == 0


def test_what_it_said_is_redacted_bounded_and_on_one_line() -> None:
    ran = process.run(
        python(r"import sys; sys.stderr.write('no\nsuch ' + sys.stdin.read() + '\x1b[31m!' + 'x' * 9999)"),
        soon(),
        stdin=b"canary",
        secrets=[b"canary-x", b"canary", b"can", b""],
    )
    assert ran.said.startswith("no such [redacted]?[31m!x")
    assert len(ran.said) <= 400


@pytest.mark.parametrize("argv", [[], ["true"], ["./true"]])
def test_a_command_without_an_absolute_path_is_refused(argv: list[str]) -> None:
    with pytest.raises(ConfigurationInvalid):
        process.run(argv, soon())


def test_a_secret_in_an_argument_or_the_environment_is_refused_without_showing_it() -> None:
    for argv, environment in ((["/bin/echo", "--token=long-canary"], {}), (["/bin/echo"], {"TOKEN": "long-canary"})):
        with pytest.raises(ConfigurationInvalid) as caught:
            process.run(argv, soon(), secrets=[b"long-canary"], environment=environment)
        assert "canary" not in str(caught.value)


def test_a_missing_program_was_not_started() -> None:
    with pytest.raises(process.ProcessError) as caught:
        process.run(["/nonexistent/program"], soon())
    assert not caught.value.started


def test_a_result_does_not_show_what_was_written() -> None:
    assert "canary" not in repr(process.run(["/bin/echo", "canary"], soon()))
