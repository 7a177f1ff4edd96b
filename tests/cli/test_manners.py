"""What holds for every command: streams, exit codes, errors, colours, what --help may cost."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path

import pytest

from tests.cli.conftest import Vk, environment, on_a_terminal
from vaultkeeper.cli.guard import worst
from vaultkeeper.registry import PROTOCOLS, Registry

DRIVERS = ("psycopg", "pymysql", "redis", "pika", "httpx2", "httpcore2", "hvac", "bcrypt", "ruamel", "alembic")
HEAVY = (*DRIVERS, "sqlalchemy", "cryptography", "apscheduler", "pyrage")
FILE_POLICY = """\
secrets:
  shop/key:
    generator: {kind: token}
    rotation_period: 30d
    destinations: [{kind: file, path: key, read: per_use, value: "{token}"}]
"""


def loads_none_of(modules: Sequence[str], home: Path, *arguments: str) -> None:
    program = (
        "import sys\n"
        "from vaultkeeper.cli.app import run\n"
        "code = run(sys.argv[1:])\n"
        f"loaded = [m for m in {modules!r} if m in sys.modules]\n"
        "sys.stderr.write(f'{code} {loaded}')\n"
    )
    done = subprocess.run(
        [sys.executable, "-c", program, *arguments],
        capture_output=True,
        text=True,
        env=environment(home),
        cwd=home,
        check=True,
    )
    assert done.stdout
    assert done.stderr == "0 []"


@pytest.mark.parametrize("arguments", [["--help"], ["--version"], ["rotate", "--help"], ["keys", "--help"]])
def test_help_and_version_load_no_heavy_module(home: Path, arguments: list[str]) -> None:
    loads_none_of(HEAVY, home, *arguments)


def test_a_command_loads_no_driver_and_no_kind_that_no_policy_names(installed: Vk, home: Path) -> None:
    (home / "policies").mkdir()
    (home / "policies/shop.yaml").write_text(FILE_POLICY)
    others = [f"vaultkeeper.{group}.{kind}" for group in PROTOCOLS for kind in Registry().kinds(group)]
    used = ("vaultkeeper.destinations.file", "vaultkeeper.generators.token")
    dialect = "sqlalchemy.dialects.postgresql"
    loads_none_of([*DRIVERS, dialect, *(kind for kind in others if kind not in used)], home, "status")


def test_a_command_that_has_ended_leaves_one_whole_database(installed: Vk, home: Path) -> None:
    """A person who copies `state.db` alone would miss what is in a write-ahead log."""
    (home / "policies").mkdir()
    (home / "policies/shop.yaml").write_text(FILE_POLICY)
    assert installed("rotate", "shop/key").code == 0
    assert [path.name for path in (home / ".local/state/vaultkeeper").glob("state.db*")] == ["state.db"]


def test_version_is_one_line_of_data(vk: Vk) -> None:
    ran = vk("--version")
    assert (ran.code, ran.err) == (0, "")
    assert ran.out.startswith("vaultkeeper ")


@pytest.mark.parametrize("arguments", [["bogus"], ["rotate"], ["rotate", "--bogus"], ["get"], ["rotate", "--all", "a"]])
def test_a_wrong_command_line_exits_2_with_an_error_of_the_documented_shape(
    installed: Vk, home: Path, arguments: list[str]
) -> None:
    (home / "policies").mkdir()
    ran = installed(*arguments)
    assert ran.code == 2
    assert ran.err.startswith("error[VK-")
    assert "  next   " in ran.err
    assert ran.out == ""


def test_no_arguments_show_the_help_and_exit_2(vk: Vk) -> None:
    ran = vk()
    assert ran.code == 2
    assert "rotate" in ran.out
    assert "error" not in ran.err


@pytest.mark.parametrize("arguments", [["--json", "status"], ["status", "--json"]])
def test_json_works_before_and_after_the_command_and_errors_are_json_on_stdout_too(
    vk: Vk, arguments: list[str]
) -> None:
    ran = vk(*arguments)
    assert ran.code == 3
    assert ran.json["error"]["code"] == "VK-CONFIG"
    assert "error[VK-CONFIG]" in ran.err
    assert "vaultkeeper init" in ran.err


def test_the_later_of_two_global_options_wins(installed: Vk, home: Path) -> None:
    (home / "policies").mkdir()
    ran = installed("--state-dir", "nowhere", "history", "a", "--state-dir", home / ".local/state/vaultkeeper")
    assert "nowhere" not in ran.err


@pytest.mark.parametrize("name", ["STATE_DIR", "POLICIES", "IDENTITY"])
def test_a_variable_and_its_twin_at_once_are_an_error(installed: Vk, home: Path, name: str) -> None:
    (home / "policies").mkdir()
    twice = {f"VAULTKEEPER_{name}": "a", f"VAULTKEEPER_{name}_FILE": "b"}
    ran = installed("status", env=twice)
    assert ran.code == 3
    assert f"VAULTKEEPER_{name} and VAULTKEEPER_{name}_FILE are both set" in ran.err


def test_an_unexpected_error_shows_its_class_and_neither_its_text_nor_a_traceback(home: Path) -> None:
    program = (
        "import sys, vaultkeeper.encryption.installation as i\n"
        "def boom(*_): raise RuntimeError('hunter2 is the password')\n"
        "i.Public.read = boom\n"
        "from vaultkeeper.cli.app import run\n"
        "sys.exit(run(['keys', 'show']))\n"
    )
    for debug in ("", "1"):
        done = subprocess.run(
            [sys.executable, "-c", program],
            capture_output=True,
            text=True,
            env=environment(home) | {"VAULTKEEPER_DEBUG": debug},
            check=False,
        )
        assert done.returncode == 1
        assert done.stderr.startswith("error[VK-UNEXPECTED] unexpected RuntimeError\n")
        assert "hunter2" not in done.stderr
        assert "Traceback" not in done.stderr
        assert ("in boom" in done.stderr) == bool(debug)


@pytest.mark.parametrize(
    ("codes", "expected"),
    [([0, 7, 5], 5), ([6, 5], 6), ([0, 10], 10), ([7, 4, 3], 4), ([1, 4], 1), ([3, 7], 3), ([], 0), ([0, 0], 0)],
)
def test_of_several_outcomes_the_worst_is_the_exit_code(codes: list[int], expected: int) -> None:
    assert worst(codes) == expected


@pytest.mark.parametrize("arguments", [["generators"], ["forget", "--help"]])
def test_a_reader_that_goes_away_ends_the_output_quietly(home: Path, arguments: list[str]) -> None:
    read, write = os.pipe()
    os.close(read)
    done = subprocess.run(
        [sys.executable, "-m", "vaultkeeper", *arguments],
        stdout=write,
        stderr=subprocess.PIPE,
        env=environment(home),
        check=False,
    )
    os.close(write)
    assert (done.returncode, done.stderr) == (0, b"")


def test_output_that_cannot_be_written_is_an_error(home: Path) -> None:
    with Path("/dev/full").open("wb") as full:
        done = subprocess.run(
            [sys.executable, "-m", "vaultkeeper", "generators"],
            stdout=full,
            stderr=subprocess.PIPE,
            env=environment(home),
            check=False,
        )
    assert done.returncode == 1
    assert b"Traceback" not in done.stderr


def test_an_interrupt_exits_130_without_a_traceback(home: Path) -> None:
    program = (
        "import sys, signal, os, vaultkeeper.encryption.installation as i\n"
        "signal.signal(signal.SIGINT, signal.default_int_handler)\n"  # a background job inherits it ignored
        "i.Public.read = lambda *_: os.kill(os.getpid(), signal.SIGINT)\n"
        "from vaultkeeper.cli.app import run\n"
        "sys.exit(run(['keys', 'show']))\n"
    )
    done = subprocess.run(
        [sys.executable, "-c", program], capture_output=True, text=True, env=environment(home), check=False
    )
    assert done.returncode == 128 + signal.SIGINT
    assert "Traceback" not in done.stderr
    assert "vaultkeeper resume --all" in done.stderr


def test_colours_are_for_terminals_and_no_color_ends_them(home: Path) -> None:
    assert "\x1b[" in on_a_terminal(home, "generators")[1]
    assert "\x1b[" not in on_a_terminal(home, "generators", env={"NO_COLOR": "1"})[1]
    assert "\x1b[" not in on_a_terminal(home, "generators", "--no-color")[1]


def test_without_a_terminal_nothing_is_coloured_or_cut_off(vk: Vk) -> None:
    ran = vk("generators")
    assert ran.code == 0, ran.err
    assert "\x1b" not in ran.out
    assert "…" not in ran.out


def test_init_on_a_terminal_asks_and_an_empty_answer_makes_nothing(home: Path) -> None:
    code, shown = on_a_terminal(home, "init", answers={"`none`: ": ""})
    assert code == 2
    assert "nothing was made" in shown
    assert list(home.iterdir()) == []


def test_init_on_a_terminal_takes_none_for_an_answer(home: Path) -> None:
    code, shown = on_a_terminal(home, "init", answers={"`none`: ": "none"})
    assert code == 0, shown
    assert "if the identity is lost" in shown


def test_a_hostile_text_cannot_drive_the_terminal_or_the_markup(capsys: pytest.CaptureFixture[str]) -> None:
    from vaultkeeper.cli.output import Output
    from vaultkeeper.errors import BackendError

    Output().error(BackendError("a\x1b[2Jb [red]c[/red]", why="d\re"))
    Output().table(["X"], [["\x1b]0;title\x07 [bold]x[/bold]"]])
    shown = capsys.readouterr()
    assert "\x1b" not in shown.err + shown.out
    assert "[red]c[/red]" in shown.err
    assert "[bold]x[/bold]" in shown.out


def test_identity_that_others_can_read_is_refused_with_4(installed: Vk, home: Path) -> None:
    (home / ".config/vaultkeeper/identity.txt").chmod(0o644)
    ran = installed("keys", "check")
    assert ran.code == 4
    assert "chmod 0600" in ran.err


def test_state_that_others_can_read_is_refused_with_4(installed: Vk, home: Path) -> None:
    (home / ".local/state/vaultkeeper").chmod(0o755)
    ran = installed("keys", "check")
    assert ran.code == 4, ran.err


def test_a_corrupt_database_is_refused_and_nothing_is_lost(installed: Vk, home: Path) -> None:
    path = home / ".local/state/vaultkeeper/state.db"
    broken = b"not a database" * 1000
    path.write_bytes(broken)
    ran = installed("keys", "check")
    assert ran.code == 1
    assert "error[VK-STORE]" in ran.err
    assert path.read_bytes() == broken


def test_a_state_of_a_newer_version_is_refused_with_3(installed: Vk, home: Path) -> None:
    path = home / ".local/state/vaultkeeper/installation.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | {"schema": 99}))
    ran = installed("keys", "check")
    assert ran.code == 3
    assert "newer version" in ran.err


def test_without_any_identity_the_error_names_every_place_that_was_looked_at(installed: Vk, home: Path) -> None:
    (home / ".config/vaultkeeper/identity.txt").unlink()
    ran = installed("keys", "check")
    assert ran.code == 4
    for place in ("/run/secrets/vaultkeeper_identity", str(home / ".config/vaultkeeper/identity.txt")):
        assert place in ran.err


def test_the_systemd_credential_is_found_before_what_init_made(installed: Vk, home: Path) -> None:
    credentials = home / "credentials"
    credentials.mkdir(mode=0o700)
    (home / ".config/vaultkeeper/identity.txt").rename(credentials / "vaultkeeper-identity")
    assert installed("keys", "check", env={"CREDENTIALS_DIRECTORY": str(credentials)}).code == 0
