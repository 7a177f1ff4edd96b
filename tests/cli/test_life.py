"""A secret's life by the real command: policies, rotations, values, and what each says. No server is needed."""

from __future__ import annotations

import json
import os
import re
import signal
import subprocess
import sys
import time
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest

from tests.cli.conftest import Vk, environment, on_a_terminal
from vaultkeeper.access import sops
from vaultkeeper.store.locks import FileLocks

POLICY = """\
defaults: {min_interval: 0s}
secrets:
  shop/key:
    owner: ops@example.com
    tags: [web]
    generator: {kind: password, length: 32}
    destinations: [{kind: file, path: ../out/key, read: per_use}]
  shop/token:
    rotation_period: 30d
    generator: {kind: token, bytes: 32}
    destinations: [{kind: file, path: ../out/token, read: per_use}]
  shop/name:
    static: shop_production
    destinations: [{kind: file, path: ../out/name, read: per_use}]
  shop/off:
    enabled: false
    generator: {kind: hex, bytes: 32}
    destinations: []
"""


@pytest.fixture
def shop(installed: Vk, home: Path) -> Vk:
    """An installation with four policies."""
    (home / "policies").mkdir()
    (home / "out").mkdir()
    (home / "policies/shop.yaml").write_text(POLICY)
    return installed


def rotated(vk: Vk, *arguments: str) -> dict[str, dict[str, object]]:
    ran = vk("rotate", "--json", *arguments)
    assert ran.code == 0, ran.err
    return {entry["secret"]: entry for entry in ran.json["rotations"]}


def test_rotate_all_delivers_every_enabled_policy_and_counts_it(shop: Vk, home: Path) -> None:
    ran = shop("rotate", "--all", "--json")
    assert ran.code == 0, ran.err
    assert ran.json["changed"] == 3
    entries = {entry["secret"]: entry for entry in ran.json["rotations"]}
    assert set(entries) == {"shop/key", "shop/token", "shop/name"}
    assert {"secret", "rotation", "state", "from_version", "to_version", "seconds", "error"} <= set(entries["shop/key"])
    assert (entries["shop/key"]["state"], entries["shop/key"]["to_version"], entries["shop/key"]["error"]) == (
        "done",
        1,
        None,
    )
    assert len((home / "out/key").read_text()) == 32
    assert (home / "out/name").read_text() == "shop_production"


def test_get_prints_exactly_the_bytes_into_a_pipe(shop: Vk, home: Path) -> None:
    rotated(shop, "shop/key")
    assert shop("get", "shop/key").out == (home / "out/key").read_text()
    assert shop("get", "shop/key", "--field", "password", "--json").json == {
        "secret": "shop/key",
        "version": 1,
        "field": "password",
        "value": (home / "out/key").read_text(),
    }
    missing = shop("get", "shop/key", "--field", "user")
    assert (missing.code, missing.out) == (2, "")
    assert "password" in missing.err


def test_an_older_version_can_still_be_read_by_number(shop: Vk, home: Path) -> None:
    rotated(shop, "shop/key")
    first = (home / "out/key").read_text()
    rotated(shop, "shop/key")
    assert (home / "out/key").read_text() != first
    assert shop("get", "shop/key", "--version", "1").out == first
    assert shop("get", "shop/key", "--version", "9").code == 2


def test_no_command_but_get_shows_a_value(shop: Vk, home: Path) -> None:
    first = rotated(shop, "shop/key")
    value = (home / "out/key").read_text()
    shown = json.dumps(first)
    for command in (
        ["status"],
        ["history", "shop/key"],
        ["plan"],
        ["check", "--show"],
        ["doctor"],
        ["-vv", "rotate", "shop/key"],
    ):
        ran = shop(*command)
        shown += ran.out + ran.err
    assert value not in shown
    assert (home / "out/key").read_text() not in shown


def test_status_names_version_age_due_time_and_the_head_of_the_audit_log(shop: Vk) -> None:
    rotated(shop, "shop/token")
    status = shop("status", "--json").json
    assert status["audit_head"]["number"] > 0
    by_name = {entry["name"]: entry for entry in status["secrets"]}
    assert set(by_name) == {"shop/key", "shop/token", "shop/name", "shop/off"}
    token = by_name["shop/token"]
    assert (token["version"], token["owner"]) == (1, "")
    assert 0 <= token["age_seconds"] < 600
    assert token["due_at"].endswith("Z")
    assert by_name["shop/key"]["owner"] == "ops@example.com"
    assert by_name["shop/off"]["state"] == "disabled"


def test_history_shows_rotations_newest_first_with_their_reason(shop: Vk) -> None:
    rotated(shop, "shop/key", "--reason", "first of all")
    rotated(shop, "shop/key", "--reason", "a person left")
    found = shop("history", "shop/key", "--json").json["rotations"]
    assert [entry["reason"] for entry in found] == ["a person left", "first of all"]
    assert [entry["to_version"] for entry in found] == [2, 1]


ONE_VALUE = """\
secrets:
  door/code:
    generator: {{kind: password}}
    min_interval: 0s
    target: {{kind: command, strategy: single, set: [{lock}, set], test: [{lock}, test]}}
    destinations: [{{kind: file, path: ../out/code, read: per_use}}]
"""
LOCK = """\
#!/bin/sh
# Takes one code at a time: the password of the first version that the document names.
code=$(grep -o '"password": "[^"]*"' | head -n 1)
case $1 in
  set) printf %s "$code" > {kept} ;;
  test) test "$code" = "$(cat {kept})" ;;
esac
"""


def test_plan_states_the_gap_of_one_value_at_a_time_and_history_measures_it(installed: Vk, home: Path) -> None:
    lock, kept = home / "lock", home / "kept"
    lock.write_text(LOCK.format(kept=kept))
    lock.chmod(0o700)
    (home / "policies").mkdir()
    (home / "out").mkdir()
    (home / "policies/door.yaml").write_text(ONE_VALUE.format(lock=lock))
    kept.write_text('"password": "1234-5678-9012-3456"')
    assert installed("adopt", "door/code", stdin="1234-5678-9012-3456").code == 0
    said = "gap        from set to confirm whoever still has the old value is refused; "
    assert said + "none was measured yet" in installed("plan", "--offline").out
    assert installed("rotate", "door/code").code == 0
    (entry,) = installed("history", "door/code", "--json").json["rotations"]
    assert re.search(rf"{said}the last one took [1-9][0-9.]*m?s\n", installed("plan", "--offline").out)
    (plan,) = installed("plan", "--offline", "--json").json["plans"]
    assert plan["gap"]["last_seconds"] == entry["gap_seconds"] > 0
    assert re.search(r"gap [1-9][0-9.]*m?s", installed("history", "door/code").out)


def test_plan_exit_code_is_10_while_something_is_due_and_0_afterwards(shop: Vk) -> None:
    assert shop("plan", "--exit-code").code == 10
    assert "shop/token" in shop("plan", "--due").out
    assert shop("rotate", "--due").code == 0
    assert shop("plan", "--exit-code").code == 0
    nothing = shop("rotate", "--due", "--json")
    assert (nothing.code, nothing.json) == (0, {"changed": 0, "rotations": []})


def test_a_dry_run_shows_every_step_and_changes_nothing(shop: Vk, home: Path) -> None:
    ran = shop("rotate", "shop/key", "--dry-run")
    assert ran.code == 0, ran.err
    assert "deliver" in ran.out
    assert list((home / "out").iterdir()) == []


def test_a_paused_secret_is_skipped_by_all_and_refused_by_name_with_7(shop: Vk) -> None:
    assert shop("pause", "shop/key", "--for", "2d", "--reason", "fair").code == 0
    by_name = shop("rotate", "shop/key", "--json")
    assert by_name.code == 7
    assert by_name.json["changed"] == 0
    assert by_name.json["rotations"][0]["state"] == "skipped"
    everything = rotated(shop, "--all")
    assert everything["shop/key"]["state"] == "skipped"
    assert "fair" in str(everything["shop/key"]["detail"])
    assert shop("unpause", "shop/key").code == 0
    assert rotated(shop, "shop/key")["shop/key"]["state"] == "done"


def test_a_pause_without_end_and_reason_says_how_to_end_it(shop: Vk) -> None:
    assert shop("pause", "shop/key").code == 0
    ran = shop("rotate", "shop/key")
    assert ran.code == 7
    assert "shop/key: paused\n" in ran.err
    assert "vaultkeeper unpause shop/key" in ran.err


def test_what_was_rotated_just_now_says_when_it_may_be_again(shop: Vk, home: Path) -> None:
    (home / "policies/shop.yaml").write_text(POLICY.replace("min_interval: 0s", "min_interval: 1h"))
    rotated(shop, "shop/key")
    ran = shop("rotate", "shop/key", "--json")
    opened = datetime.fromisoformat(shop("history", "shop/key", "--json").json["rotations"][0]["opened_at"])
    error = ran.json["rotations"][0]["error"]
    assert ran.code == 7
    assert f"not again before {opened + timedelta(hours=1):%Y-%m-%d %H:%M}" in error["what"]
    assert error["next"].startswith("then   vaultkeeper rotate shop/key")


def test_a_disabled_secret_says_that_its_policy_must_change(shop: Vk) -> None:
    ran = shop("rotate", "shop/off")
    assert (ran.code, "enabled: true in its policy" in ran.err) == (7, True)


def test_a_pause_ends_by_itself(shop: Vk) -> None:
    assert shop("pause", "shop/key", "--for", "1s").code == 0
    until = datetime.now(UTC) + timedelta(seconds=1)
    while datetime.now(UTC) <= until:
        time.sleep(0.05)
    assert rotated(shop, "shop/key")["shop/key"]["state"] == "done"
    assert shop("pause", "shop/key", "--until", "2020-01-01").code == 2


def test_a_secret_that_another_process_holds_is_skipped_by_all_and_refused_by_name_with_7(shop: Vk, home: Path) -> None:
    with FileLocks(home / ".local/state/vaultkeeper/locks").hold("secret:shop/key"):
        ran = shop("rotate", "--all", "--json")
        assert (ran.code, ran.json["changed"]) == (0, 2)
        assert str(os.getpid()) in str(ran.json["rotations"])
        assert shop("rotate", "shop/key").code == 7


def test_a_tag_selects_and_an_unknown_one_names_those_in_use(shop: Vk) -> None:
    assert set(rotated(shop, "--tag", "web")) == {"shop/key"}
    unknown = shop("rotate", "--tag", "nope")
    assert unknown.code == 2
    assert "web" in unknown.err


def test_an_unknown_name_is_refused_with_the_nearest_one_before_anything_is_rotated(shop: Vk, home: Path) -> None:
    ran = shop("rotate", "shop/token", "shop/kee")
    assert ran.code == 2
    assert "shop/key" in ran.err
    assert list((home / "out").iterdir()) == []


def test_adopt_takes_the_bare_value_without_its_line_break(shop: Vk) -> None:
    ran = shop("adopt", "shop/key", stdin="correct horse battery\n")
    assert ran.code == 0, ran.err
    assert "correct horse" not in ran.out + ran.err
    assert shop("get", "shop/key").out == "correct horse battery"


def test_adopting_what_is_current_already_says_so(shop: Vk) -> None:
    assert "v1 works and is now current" in shop("adopt", "shop/key", stdin="correct horse battery").err
    assert "v1 works and is already current" in shop("adopt", "shop/key", stdin="correct horse battery").err


def test_adopt_takes_fields_from_a_json_object(shop: Vk) -> None:
    assert shop("adopt", "shop/key", stdin='{"password": "pa ss"}').code == 0
    assert shop("get", "shop/key", "--field", "password").out == "pa ss"


@pytest.mark.parametrize("given", ["", "\n", '{"password": 7}', r'{"password": "\ud800"}', "{}", "x" * ((1 << 20) + 1)])
def test_adopt_refuses_what_is_no_value_and_does_not_repeat_it(shop: Vk, given: str) -> None:
    ran = shop("adopt", "shop/key", stdin=given)
    assert ran.code == 2
    assert len(ran.err) < 500
    assert shop("get", "shop/key").code == 2


def test_rollback_brings_the_previous_value_back_as_a_new_version(shop: Vk, home: Path) -> None:
    rotated(shop, "shop/key")
    first = (home / "out/key").read_text()
    rotated(shop, "shop/key")
    ran = shop("rollback", "shop/key", "--json")
    assert ran.code == 0, ran.err
    assert ran.json["rotations"][0]["to_version"] == 3
    assert (home / "out/key").read_text() == first


def test_rollback_without_a_previous_version_says_so(shop: Vk) -> None:
    rotated(shop, "shop/key")
    ran = shop("rollback", "shop/key")
    assert ran.code == 2
    assert "no previous version" in ran.err


def test_reconcile_proposes_to_deliver_again_what_somebody_overwrote(shop: Vk, home: Path) -> None:
    rotated(shop, "shop/key")
    value = (home / "out/key").read_text()
    assert shop("reconcile", "shop/key", "--json").json["proposals"] == []
    (home / "out/key").write_text("somebody was here")
    proposals = shop("reconcile", "shop/key", "--json").json["proposals"]
    assert [entry["key"] for entry in proposals] == ["deliver"]
    assert (home / "out/key").read_text() == "somebody was here"
    assert shop("reconcile", "shop/key", "--apply", "nonsense").code == 2
    ran = shop("reconcile", "shop/key", "--apply", "deliver")
    assert ran.code == 0, ran.err
    assert (home / "out/key").read_text() == value


def test_forget_without_a_terminal_wants_yes(shop: Vk) -> None:
    rotated(shop, "shop/key")
    assert shop("forget", "shop/key").code == 2
    assert shop("get", "shop/key").code == 0
    assert shop("forget", "shop/key", "--yes").code == 0
    assert shop("get", "shop/key").code == 2


def test_keys_check_opens_every_stored_value_and_names_one_that_was_exchanged(shop: Vk, home: Path) -> None:
    import sqlite3

    rotated(shop, "--all")
    assert shop("keys", "check", "--json").json == {"opened": 3, "unreadable": []}
    with sqlite3.connect(home / ".local/state/vaultkeeper/state.db") as db:
        db.execute("UPDATE versions SET sealed = (SELECT sealed FROM versions WHERE secret = 'shop/name')")
    ran = shop("keys", "check", "--json")
    assert ran.code == 4
    assert {entry["secret"] for entry in ran.json["unreadable"]} == {"shop/key", "shop/token"}


def test_keys_check_counts_one_value_as_one(shop: Vk) -> None:
    rotated(shop, "shop/key")
    assert shop("keys", "check").err.startswith("1 stored value opens with ")


def test_audit_verify_names_the_first_record_that_was_edited(shop: Vk, home: Path) -> None:
    rotated(shop, "--all")
    assert shop("audit", "verify", "--json").json["records"] > 3
    log = home / ".local/state/vaultkeeper/audit.log"
    lines = log.read_bytes().splitlines(keepends=True)
    lines[1] = lines[1].replace(b"shop/", b"shoq/")
    log.write_bytes(b"".join(lines))
    ran = shop("audit", "verify")
    assert ran.code == 1
    assert "record 2 is edited" in ran.err


def test_doctor_is_content_with_a_new_installation_and_not_with_a_broken_policy(shop: Vk, home: Path) -> None:
    findings = {entry["subject"]: entry["level"] for entry in shop("doctor", "--json").json["findings"]}
    assert findings["state"] == findings["audit log"] == findings["policies"] == "ok"
    assert findings["recovery"] == "warn"
    (home / "policies/shop.yaml").write_text("secrets: [")
    assert shop("doctor").code == 3


def test_doctor_asks_the_servers_too_unless_it_is_told_not_to(shop: Vk, home: Path) -> None:
    place = "{kind: swarm, host: 'unix:///nowhere/docker.sock', services: [shop_api], secret: key}"
    (home / "policies/swarm.yaml").write_text(f"secrets: {{shop/far: {{static: here, destinations: [{place}]}}}}\n")
    asked = [entry for entry in shop("doctor", "--json").json["findings"] if entry["subject"] == "shop/far"]
    assert any(entry["level"] == "unchecked" and "no such socket" in entry["text"] for entry in asked)
    offline = shop("doctor", "--offline", "--json").json["findings"]
    assert "shop/far" not in {entry["subject"] for entry in offline}


def test_check_offline_needs_no_installation_and_check_show_merges_defaults(vk: Vk, home: Path) -> None:
    (home / "policies").mkdir()
    (home / "policies/shop.yaml").write_text(POLICY)
    assert vk("check", "--offline", "--json").json["secrets"] == ["shop/key", "shop/name", "shop/off", "shop/token"]
    assert "min_interval" in vk("check", "--show").out


def test_a_policy_error_names_file_line_and_column_and_exits_3(shop: Vk, home: Path) -> None:
    (home / "policies/bad.yaml").write_text("secrets:\n  shop/x:\n    generatr: {kind: password}\n")
    ran = shop("check", "--offline")
    assert ran.code == 3
    assert "bad.yaml:3:5" in ran.err
    assert "generator" in ran.err


BAD_FILES = {
    "binary": bytes(range(256)),
    "utf-16": "secrets: {}\n".encode("utf-16"),
    "tabs": b"secrets:\n\ta: 1\n",
    "bomb": b"a: &a [x,x]\nb: &b [*a,*a]\nsecrets: *b\n",
    "huge": b"# " + b"x" * (2 << 20),
    "list": b"- 1\n",
    "deep": b"secrets: " + b"[" * 100_000,
}


@pytest.mark.parametrize("name", BAD_FILES)
def test_a_bad_policy_file_is_refused_with_3_and_named_without_a_traceback(shop: Vk, home: Path, name: str) -> None:
    (home / f"policies/{name}.yaml").write_bytes(BAD_FILES[name])
    ran = shop("rotate", "--all")
    assert ran.code == 3, ran.err
    assert f"{name}.yaml" in ran.err
    assert "Traceback" not in ran.err
    assert list((home / "out").iterdir()) == []


def test_a_sops_file_is_encrypted_for_this_installation_and_opens_with_its_identity(shop: Vk, home: Path) -> None:
    (home / "policies/sops.yaml").write_text(
        "secrets:\n"
        "  shop/env:\n"
        "    min_interval: 0s\n"
        "    generator: {kind: hex}\n"
        "    destinations: [{kind: sops, path: ../out/s.sops.yaml, values: {key: '{value}'}}]\n"
    )
    rotated(shop, "shop/env")
    rotated(shop, "shop/env")
    opened = subprocess.run(
        [sops.locate(), "decrypt", "--output-type", "json", home / "out/s.sops.yaml"],
        capture_output=True,
        env={"SOPS_AGE_KEY_FILE": str(home / ".config/vaultkeeper/identity.txt")},
        check=True,
    )
    assert shop("get", "shop/env").out in json.loads(opened.stdout).values()


def test_schema_and_kinds_are_data(vk: Vk) -> None:
    assert vk("schema").json["$schema"].startswith("https://json-schema.org/")
    listed = {one["kind"]: one for one in vk("targets", "--json").json["targets"]}
    assert listed["postgres"]["strategies"] == ["alternating_users", "single"]
    assert "CREATEROLE" in listed["postgres"]["privileges"]
    assert all(one["origin"] == "vaultkeeper" and one["privileges"] and not one["problem"] for one in listed.values())
    assert re.search(r"^token_list +overlap +A list of accepted bearer tokens", vk("targets").out, re.MULTILINE)
    assert "swarm" in vk("destinations").out
    assert "password" in vk("generators").out


def test_one_kind_is_told_in_full(vk: Vk) -> None:
    told = vk("targets", "postgres").out
    for part in ("privileges\n  Of the admin account: a superuser", "alternating_users", "host  ", "text, required"):
        assert part in told
    whole = vk("targets", "postgres", "--json").json
    settings = {setting["name"]: setting for setting in whole["settings"]}
    assert settings["host"]["required"]
    assert settings["port"]["default"] == "5432"
    assert {inner["name"] for inner in settings["tls"]["inside"]["{ca: …}"]} == {"ca"}
    assert "strategy" in whole["common"]
    assert "confirm" in vk("destinations", "file").out
    assert "length" in vk("generators", "password").out
    unknown = vk("targets", "postgre")
    assert (unknown.code, "did you mean `postgres`?" in unknown.err) == (2, True)
    assert "password" in {entry["kind"] for entry in vk("generators", "--json").json["generators"]}
    assert "file" in {entry["kind"] for entry in vk("destinations", "--json").json["destinations"]}
    assert "postgres" in {entry["kind"] for entry in vk("targets", "--json").json["targets"]}


def test_an_interrupted_rotation_exits_130_at_once_and_resume_finishes_it(shop: Vk, home: Path) -> None:
    """The reload command blocks a worker thread until the test lets it go."""
    gate = home / "gate"
    os.mkfifo(gate)
    (home / "policies/slow.yaml").write_text(
        f"""\
secrets:
  slow/key:
    generator: {{kind: password, length: 32}}
    destinations:
      - {{kind: file, path: ../out/slow, read: at_start, reload: {{command: [/bin/cat, {gate}]}}}}
"""
    )
    process = subprocess.Popen(
        [sys.executable, "-m", "vaultkeeper", "rotate", "slow/key", "shop/key"],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        env=environment(home),
        cwd=home,
    )
    with gate.open("wb"):  # opens when the command has
        process.send_signal(signal.SIGINT)
        _, err = process.communicate(timeout=60)
    assert process.returncode == 130, err
    assert b"Traceback" not in err
    assert b"vaultkeeper resume" in err
    with_gate = subprocess.Popen(
        [sys.executable, "-m", "vaultkeeper", "resume", "--all", "--json"],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        env=environment(home),
        cwd=home,
    )
    while with_gate.poll() is None:
        try:
            os.close(os.open(gate, os.O_WRONLY | os.O_NONBLOCK))
        except OSError:
            time.sleep(0.01)
    out, err = with_gate.communicate(timeout=60)
    assert with_gate.returncode == 0, err
    assert {entry["secret"]: entry["state"] for entry in json.loads(out)["rotations"]}["slow/key"] == "done"


def test_on_a_terminal_rotate_shows_the_plan_and_takes_no_for_an_answer(shop: Vk, home: Path) -> None:
    code, shown = on_a_terminal(home, "rotate", "shop/key", answers={"[y/N] ": ""})
    assert code == 0
    assert "deliver" in shown
    assert "Nothing was changed." in shown
    assert list((home / "out").iterdir()) == []
    code, shown = on_a_terminal(home, "rotate", "shop/key", answers={"[y/N] ": "y"})
    assert code == 0
    assert (home / "out/key").read_text() not in shown


def test_on_a_terminal_get_wants_reveal(shop: Vk, home: Path) -> None:
    rotated(shop, "shop/key")
    value = (home / "out/key").read_text()
    code, shown = on_a_terminal(home, "get", "shop/key")
    assert (code, value in shown) == (2, False)
    assert "--reveal" in shown
    code, shown = on_a_terminal(home, "get", "shop/key", "--reveal")
    assert (code, shown) == (0, f"{value}\r\n")


def test_on_a_terminal_adopt_asks_for_the_value_without_echo(shop: Vk, home: Path) -> None:
    answers = {"shop/key value: ": "correct horse battery", "[y/N] ": "y"}
    code, shown = on_a_terminal(home, "adopt", "shop/key", answers=answers)
    assert code == 0, shown
    assert "correct horse" not in shown
    assert shop("get", "shop/key").out == "correct horse battery"


def test_work_over_a_second_shows_its_progress_on_a_terminal_and_nowhere_else(shop: Vk, home: Path) -> None:
    (home / "policies/slow.yaml").write_text(
        """\
secrets:
  slow/key:
    min_interval: 0s
    generator: {kind: password, length: 32}
    destinations:
      - {kind: file, path: ../out/slow, read: at_start, healthy_for: 0s, reload: {command: [/bin/sleep, "2"]}}
"""
    )
    _, shown = on_a_terminal(home, "rotate", "slow/key", "--yes")
    assert "0:00:0" in shown
    assert shown.endswith("\r\n")
    assert "\x1b[?25h" in shown  # the cursor is back
    _, quick = on_a_terminal(home, "rotate", "shop/key", "--yes", "-q")
    assert "0:00:0" not in quick
    assert shop("rotate", "slow/key").err == ""
