"""Mutations that tests must find: one and more for each invariant, and one for each key row of the judgement table.

A mutation is exact text in a named file, put in place in a copy of the tree; the named tests must then fail. To add
one: an entry in MUTATIONS. Text that stands in its file not exactly once is a mutation that says nothing, and fails.
"""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import tempfile
import time
from dataclasses import dataclass
from pathlib import Path

RED, GREEN = (
    1,
    0,
)  # pytest's exit codes: some test failed; all passed. Others (no test, broken collection) prove nothing
PATIENCE_S = 600  # for one run of tests
ENGINE, ROWS = "vaultkeeper/engine", "tests/unit/engine"
SEARCH, JUDGE = f"{ROWS}/test_search.py", f"{ROWS}/test_judge.py"
PLAN, VERDICT, HOOKS = f"{ROWS}/test_plan.py", f"{ROWS}/test_verdict.py", f"{ROWS}/test_invariants.py"
DOKPLOY = "tests/integration/test_dokploy.py"
GRAFANA = "tests/integration/test_grafana_{}.py"
COLLECTOR = "tests/integration/test_collector.py"
REDIS = "tests/integration/test_redis.py"
BY_HAND, BUDGET = (f"tests/unit/engine_steps/test_{name}.py" for name in ("by_hand", "budget"))
ENVELOPE, INSTALLATION = "tests/unit/encryption/test_envelope.py", "tests/unit/encryption/test_installation.py"


@dataclass(frozen=True)
class Mutation:
    """`tests`: arguments for pytest: a file, "-k" and the words that choose in it."""

    what: str
    file: str
    old: str
    new: str
    tests: tuple[str, str, str]


def named(file: str, words: str) -> tuple[str, str, str]:
    """Tests of a file whose names hold these words."""
    return (file, "-k", words)


MUTATIONS = [
    # ------------------------------------------------------------------------------------------------------ invariants
    Mutation(
        "01 durable before visible: begin does not write",
        f"{ENGINE}/work.py",
        '            self.write()\n            return\n        record = self._record("begin", phase.step.value)\n'
        "        self._owe(record)\n        self.write()\n",
        '            return\n        record = self._record("begin", phase.step.value)\n        self._owe(record)\n',
        named(HOOKS, "invariant_01"),
    ),
    Mutation(
        "02 reachable: the way back puts the target first",
        f"{ENGINE}/plan.py",
        "[*target, *consumers, *tail] if one_at_a_time else [*consumers, *target, *tail]",
        "[*target, *consumers, *tail]",
        named(SEARCH, "invariant_02 and alternating and first or invariant_02 and minted"),
    ),
    Mutation(
        "02 reachable: going back asks nobody whether the old value still works",
        f"{ENGINE}/judge.py",
        "    if seen.from_ is not Login.REJECTED or seen.to is not Login.ACCEPTED:\n",
        "    if True:\n",
        named(JUDGE, "going_back_to_a_refused_value"),
    ),
    Mutation(
        "03 no orphaned candidate: a take-over knows no doubt",
        f"{ENGINE}/moves.py",
        "        return replace(rotation, begun=False, outcome_unknown=True, doubted=True)\n",
        "        return replace(rotation, begun=False)\n",
        named(JUDGE, "invariant_03"),
    ),
    Mutation(
        "03 no orphaned candidate: silence counts as a rejection",
        f"{ENGINE}/judge.py",
        "    if silent is not None:\n",
        "    if silent is not None and silent is not silent:\n",
        named(JUDGE, "invariant_03"),
    ),
    Mutation(
        "04 one open rotation: the index is not unique",
        "vaultkeeper/store/migrations/versions/0001_first_schema.py",
        '        unique=True,\n        sqlite_where=sa.text("open"),\n',
        '        unique=False,\n        sqlite_where=sa.text("open"),\n',
        named("tests/unit/store/test_store.py", "invariant_04"),
    ),
    Mutation(
        "05 verified: a value is adopted where anybody is let in",
        f"{ENGINE}/adopt.py",
        "    if open_to_all:\n",
        "    if False:\n",
        named("tests/unit/engine_steps/test_strategies.py", "not_adopted"),
    ),
    Mutation(
        "05 verified: a wrong value may be accepted",
        f"{ENGINE}/judge.py",
        "    if tested.wrong is Login.ACCEPTED:\n",
        "    if tested.wrong is Login.THROTTLED:\n",
        named(JUDGE, "invariant_05"),
    ),
    Mutation(
        "06 retire last: no evidence is asked for",
        f"{ENGINE}/plan.py",
        "        *([Phase(Step.EVIDENCE, C)] if calm else []),\n",
        "",
        named(PLAN, "invariant_06"),
    ),
    Mutation(
        "06 retire last: use does not hold it up",
        f"{ENGINE}/judge.py",
        "    if not usage.in_use:\n",
        "    if usage.in_use:\n",
        named(JUDGE, "invariant_06"),
    ),
    Mutation(
        "07 converges: resume leaves a parked rotation parked",
        f"{ENGINE}/moves.py",
        "state=State.RUNNING, tries=0, entered_at=now, not_before=None)",
        "tries=0, entered_at=now, not_before=None)",
        named(SEARCH, "invariant_07"),
    ),
    Mutation(
        "08 idempotent: a token set twice stands there twice",
        "vaultkeeper/targets/token_list.py",
        " and _token(line) not in wanted]",
        "]",
        named("tests/integration/test_token_list.py", "right_already"),
    ),
    Mutation(
        "09 no plaintext: texts are not cleaned of live values",
        f"{ENGINE}/guard.py",
        "            if form in text:\n",
        "            if not form:\n",
        named("tests/unit/test_logs.py", "live_value"),
    ),
    Mutation(
        "10 bound: a version opens as another one",
        "vaultkeeper/encryption/envelope.py",
        '"secret": secret, "bound_to": bound_to}\n        for',
        '"secret": secret}\n        for',
        named(ENVELOPE, "invariant_10"),
    ),
    Mutation(
        "10 bound: nobody asks who sealed it",
        "vaultkeeper/encryption/envelope.py",
        "        if not hmac.compare_digest(tag, self._tag(document)):\n",
        "        if not tag:\n",
        named(ENVELOPE, "edited_by_a_holder_of_the_identity"),
    ),
    Mutation(
        "11 recoverable: the recovery recipient is left out",
        "vaultkeeper/encryption/installation.py",
        "        return self.service + self.recovery\n",
        "        return self.service\n",
        named(INSTALLATION, "invariant_11"),
    ),
    Mutation(
        "12 stale refuses: a newer tag is passed over",
        f"{ENGINE}/judge.py",
        "    if seen.newer_tag:\n",
        "    if seen.newer_tag and rotation.finished:\n",
        named(JUDGE, "invariant_12"),
    ),
    Mutation(
        "12 stale refuses: a refusal as stale goes back",
        f"{ENGINE}/judge.py",
        "    if refused.why is No.STALE:\n",
        "    if refused.why is No.STALE and rotation.finished:\n",
        named(JUDGE, "invariant_12"),
    ),
    Mutation(
        "13 time-safe: min_interval is forgotten",
        f"{ENGINE}/schedule.py",
        "    earliest = last_finished + policy.min_interval\n",
        "    earliest = last_finished\n",
        named("tests/unit/test_schedule.py", "invariant_13"),
    ),
    Mutation(
        "14 loud: nothing is audited before a system changes",
        f"{ENGINE}/work.py",
        "        if phase is None or phase.step not in CHANGES_A_SYSTEM:\n            self.write()\n",
        "        if True:\n            self.write()\n",
        named(HOOKS, "invariant_14"),
    ),
    Mutation(
        "14 loud: an audit log that cannot be written is quiet",
        "vaultkeeper/store/audit.py",
        "                    raise self._unwritable(error) from None\n",
        "                    return\n",
        named("tests/unit/store/test_audit.py", "invariant_14"),
    ),
    Mutation(
        "14 loud: a stuck state names no next command",
        f"{ENGINE}/verdict.py",
        "        next=nexts.get(rotation.state, forward),\n",
        '        next="",\n',
        named(VERDICT, "invariant_14"),
    ),
    # --------------------------------------------------------------------------------------------- the judgement table
    Mutation(
        "Unknown: no doubt is kept",
        f"{ENGINE}/moves.py",
        "outcome_unknown=doubtful, doubted=doubtful",
        "outcome_unknown=False, doubted=doubtful",
        named(JUDGE, "running_unknown"),
    ),
    Mutation(
        "set Refused(value) the third time: rolled back for ever",
        f"{ENGINE}/moves.py",
        "MAX_VALUE_REFUSALS = 3 ",
        "MAX_VALUE_REFUSALS = 30 ",
        named(JUDGE, "set_refused"),
    ),
    Mutation(
        "Refused after a set: nothing is put back",
        f"{ENGINE}/judge.py",
        "untouched=not rotation.doubted and not rotation.settled)",
        "untouched=True)",
        named(JUDGE, "refusal_after_an_unknown_outcome"),
    ),
    Mutation(
        "Refused(conflict): parked at once",
        f"{ENGINE}/judge.py",
        "MAX_CONFLICTS = 8 ",
        "MAX_CONFLICTS = 0 ",
        named(JUDGE, "conflict"),
    ),
    Mutation(
        "test, P rejected: next",
        f"{ENGINE}/judge.py",
        "    if tested.pending is Login.REJECTED:\n",
        "    if tested.pending is Login.THROTTLED:\n",
        named(SEARCH, "invariant_02 and emergency and alternating"),
    ),
    Mutation(
        "confirm Failed: next",
        f"{ENGINE}/judge.py",
        '            return turn_back(rotation, Cause.DELIVERY, now, f"{answer.consumer}: {answer.why}")\n',
        "            return _settle(rotation, group, groups, now)\n",
        named(SEARCH, "invariant_02 and emergency and alternating"),
    ),
    Mutation(
        "confirm NotYet past its time: back, also where nobody can be put back",
        f"{ENGINE}/judge.py",
        "    if puts_back and not rotation.finished",
        "    if not rotation.finished",
        named(JUDGE, "where_they_cannot"),
    ),
    Mutation(
        "confirm NotYet in an emergency: laggards are cut unasked",
        f"{ENGINE}/judge.py",
        "    if emergency and rotation.options.cut:\n",
        "    if emergency:\n",
        named(JUDGE, "laggards"),
    ),
    Mutation(
        "after finish, Refused: goes back",
        f"{ENGINE}/moves.py",
        "    if rotation.finished or rotation.direction is Direction.BACK:\n",
        "    if rotation.direction is Direction.BACK:\n",
        named(SEARCH, "invariant_02 and emergency"),
    ),
    Mutation(
        "prove, C still accepted: set again for ever",
        f"{ENGINE}/judge.py",
        "    if rotation.failed_proofs:\n",
        "    if rotation.failed_proofs > 1:\n",
        named(JUDGE, "retires_once_more"),
    ),
    Mutation(
        "evidence: in use for ever",
        f"{ENGINE}/judge.py",
        "EVIDENCE_LIMIT = timedelta(days=7)",
        "EVIDENCE_LIMIT = timedelta(days=8)",
        named(JUDGE, "seven_days"),
    ),
    Mutation(
        "grace counts from the opening",
        f"{ENGINE}/judge.py",
        "    until = rotation.entered_at + rotation.policy.grace_period\n",
        "    until = rotation.entered_at\n",
        named(JUDGE, "grace"),
    ),
    Mutation(
        "observe, no P yet, PREVIOUS accepted: ambiguous",
        f"{ENGINE}/judge.py",
        "        return advance(_known_gone(rotation, seen), now)\n    if seen.previous is Login.ACCEPTED:\n",
        "        return advance(_known_gone(rotation, seen), now)\n    if seen.previous is None:\n",
        named(JUDGE, "went_back"),
    ),
    Mutation(
        "observe, an account in use: taken over",
        f"{ENGINE}/judge.py",
        "        if seen.account_usable and not rotation.options.replace:\n",
        "        if rotation.options.replace:\n",
        named(SEARCH, "invariant_02 and without"),
    ),
    Mutation(
        "observe, P accepted: done, whatever should be refused",
        f"{ENGINE}/judge.py",
        " and all(answers[e] is Login.REJECTED for e in refused)\n",
        "\n",
        named(SEARCH, "invariant_02 and minted and first"),
    ),
    Mutation(
        "observe, P rejected after its test: not set again",
        f"{ENGINE}/judge.py",
        "        return Change(_rewound(rotation, now))\n    return Change(_again(rotation))\n",
        "        return Change(_again(rotation))\n    return Change(_again(rotation))\n",
        named(JUDGE, "sets_the_same_version_again"),
    ),
    Mutation(
        "observe, only the retired value accepted: goes on",
        f"{ENGINE}/judge.py",
        "    if End.TO not in accepted and rotation.finished:\n",
        "    if End.TO not in accepted and not accepted:\n",
        named(JUDGE, "only_the_retired_value"),
    ),
    Mutation(
        "ambiguous: called parked",
        f"{ENGINE}/moves.py",
        "State.AMBIGUOUS if cause is Cause.NONE_ACCEPTED else State.PARKED",
        "State.PARKED",
        named(JUDGE, "ambiguous"),
    ),
    Mutation(
        "parked in the gap of single: exit 5",
        f"{ENGINE}/verdict.py",
        "    return not (one_at_a_time(rotation.policy) and needs_observation(rotation))\n",
        "    return True\n",
        named(VERDICT, "gap_of_single"),
    ),
    Mutation(
        "finish: PREVIOUS stays where it was",
        f"{ENGINE}/judge.py",
        "        StagingLabel.PREVIOUS: rotation.from_version,\n",
        "",
        named(JUDGE, "finish_moves"),
    ),
    Mutation(
        "previous_keys: promoted in one round",
        f"{ENGINE}/plan.py",
        "    rounds = [(P,)] if shape.first else [(C_THEN_P,), (P_THEN_C,)]\n",
        "    rounds = [(P,)] if shape.first else [(P_THEN_C,)]\n",
        named(SEARCH, "invariant_02 and previous"),
    ),
    Mutation(
        "resumed after the way back: what was reached is forgotten",
        f"{ENGINE}/moves.py",
        "        doubted=rotation.direction is Direction.FORWARD and at <= rotation.reached,\n",
        "        doubted=False,\n",
        named(JUDGE, "first_thing_undone"),
    ),
    # --------------------------------------------------------------------------------------------------------- Dokploy
    Mutation(
        "Dokploy: done is believed",
        "vaultkeeper/access/dokploy/confirm.py",
        "            return dokploy_running.effective(here.server, service, here.wanted(service), healthy_s)\n",
        "            return Confirmed(Proof.DEMONSTRATED)\n",
        named(DOKPLOY, "swarm_going_back or longer_than"),
    ),
    Mutation(
        "Dokploy: what was saved is not read back",
        "vaultkeeper/destinations/dokploy.py",
        "                saved = read_back(here) if changed else here\n",
        "                saved = here\n",
        named(DOKPLOY, "overwrote or believed_only"),
    ),
    Mutation(
        "Dokploy: the other fields of a save are wiped",
        "vaultkeeper/access/dokploy/service.py",
        "{name: holder.row[name] for name in",
        "{name: None for name in",
        named(DOKPLOY, "one_key_changes"),
    ),
    Mutation(
        "Dokploy: the first of several assignments is changed",
        "vaultkeeper/access/dokploy/env.py",
        '            if match["key"] == slot:\n',
        '            if match["key"] == slot and last is None:\n',
        named("tests/unit/access/test_dokploy_env.py", "last_assignment"),
    ),
    Mutation(
        "Dokploy: a name is looked up again in the middle of a rotation",
        "vaultkeeper/access/dokploy/group.py",
        "str(pinned or find(server, kind, said))",
        "str(find(server, kind, said))",
        named(DOKPLOY, "found_once"),
    ),
    Mutation(
        "Dokploy: its keys are made with the limit of ten",
        "vaultkeeper/targets/dokploy_api_key.py",
        ', "rateLimitEnabled": False}',
        "}",
        named("tests/contract/test_targets.py", "DokployApiKey and new_value_is_accepted"),
    ),
    # ------------------------------------------------------------------------------------------------------- collector
    Mutation(
        "a collector's list is unlinked before the rename",
        "vaultkeeper/access/files.py",
        "            os.rename(temporary, name, src_dir_fd=folder, dst_dir_fd=folder)\n",
        "            os.unlink(name, dir_fd=folder)\n"
        "            os.rename(temporary, name, src_dir_fd=folder, dst_dir_fd=folder)\n",
        named(COLLECTOR, "twenty"),
    ),
    Mutation(
        "a collector's list gets its owner and mode after the rename",
        "vaultkeeper/access/files.py",
        "                _dress(fd, was, mode, owner)\n"
        "                _write(fd, content)\n"
        "                os.fsync(fd)\n"
        "            finally:\n"
        "                os.close(fd)\n"
        "            if _identity(folder, name) != was.identity:\n"
        '                raise refused(No.CONFLICT, f"{path} changed while it was being edited")\n'
        "            os.rename(temporary, name, src_dir_fd=folder, dst_dir_fd=folder)\n",
        "                _write(fd, content)\n"
        "                os.fsync(fd)\n"
        "                os.rename(temporary, name, src_dir_fd=folder, dst_dir_fd=folder)\n"
        "                _dress(fd, was, mode, owner)\n"
        "            finally:\n"
        "                os.close(fd)\n",
        named(COLLECTOR, "twenty"),
    ),
    Mutation(
        "a deaf collector is not named",
        f"{ENGINE}/at_target.py",
        "    return judge.judge_tested(rotation, Tested(answer, detail=why), now)\n",
        "    return judge.judge_tested(rotation, Tested(answer), now)\n",
        named(COLLECTOR, "named and moved"),
    ),
    Mutation(
        "redis: what was set is not saved, so a restart brings the old password back",
        "vaultkeeper/access/redis/acl.py",
        "*session.run(one.command, *([save] if save else [])), None][:2]",
        "*session.run(one.command), None][:2]",
        named(REDIS, "crash_after"),
    ),
    Mutation(
        "redis: nothing is saved before the change",
        "vaultkeeper/access/redis/acl.py",
        "    for command in node.savers():\n",
        "    return ACL_SAVE\n    for command in node.savers():\n",
        named(REDIS, "fails_beforehand"),
    ),
    Mutation(
        "redis: a node whose save fails keeps the change",
        "vaultkeeper/access/redis/acl.py",
        "        undo(session, one, save)\n",
        "",
        named(REDIS, "fails_afterwards"),
    ),
    Mutation(
        "redis: a first password cuts off everybody on a nopass account",
        "vaultkeeper/access/redis/acl.py",
        "        if user is not None and user.nopass:\n",
        "        if user is None and wanted:\n",
        named(REDIS, "takes_any_password"),
    ),
    # --------------------------------------------------------------------------------------------------------- Grafana
    Mutation(
        "grafana: a refusal counts although nothing shows that the name is not locked",
        "vaultkeeper/targets/grafana_admin.py",
        "        return Login.REJECTED if asked > 1 and ctx.pending is None else Login.THROTTLED\n",
        "        return Login.REJECTED\n",
        named(GRAFANA.format("admin"), "locked_in_every_name"),
    ),
    Mutation(
        "grafana: a refused admin is tried by each secret of a command",
        "vaultkeeper/access/grafana/login.py",
        "    if waits:\n",
        "    if False:\n",
        named(GRAFANA.format("admin"), "tried_once"),
    ),
    Mutation(
        "grafana: a token that is refused without a reason is dead",
        "vaultkeeper/targets/grafana_service_account_token.py",
        "        if not error.unsaid:\n            return Login.REJECTED\n",
        "        if True:\n            return Login.REJECTED\n",
        named(GRAFANA.format("tokens"), "own_database"),
    ),
    Mutation(
        "grafana: a last use is taken at its word",
        "vaultkeeper/targets/grafana_service_account_token.py",
        "        silence = GRAIN + timedelta",
        "        silence = timedelta",
        named(GRAFANA.format("tokens"), "left_out"),
    ),
    Mutation(
        "grafana: whatever organisation its user looked at last",
        "vaultkeeper/access/grafana/__init__.py",
        '            headers |= {} if self._org is None else {"X-Grafana-Org-Id": str(self._org)}\n',
        "",
        named(GRAFANA.format("datasource"), "another_organisation"),
    ),
    Mutation(
        "grafana: a data source is written over somebody else's write",
        "vaultkeeper/access/grafana/datasource.py",
        '_NOT_SENT = frozenset({"id",',
        '_NOT_SENT = frozenset({"version", "id",',
        named(GRAFANA.format("datasource"), "conflict"),
    ),
    Mutation(
        "grafana: two writes within one second",
        "vaultkeeper/access/grafana/datasource.py",
        "SPACING = timedelta(seconds=3)",
        "SPACING = timedelta(0)",
        named(GRAFANA.format("datasource"), "seconds_apart"),
    ),
    Mutation(
        "grafana: health out of the cache and the old pool",
        "vaultkeeper/access/grafana/datasource.py",
        'server.exchange("GET", path, fresh=True)',
        'server.exchange("GET", path)',
        named(GRAFANA.format("datasource"), "stored_now"),
    ),
    # ------------------------------------------------------------------------------------------------- MariaDB, MySQL
    Mutation(
        "mariadb: methods of others come before ours",
        "vaultkeeper/access/mariadb/methods.py",
        "return (*ours, *kept) or",
        "return (*kept, *ours) or",
        named("tests/integration/test_mariadb.py", "other_methods"),
    ),
    Mutation(
        "mysql: RETAIN CURRENT PASSWORD is said again",
        "vaultkeeper/access/mysql/slots.py",
        "        if keep <= set(slots) and",
        "        if way and keep <= set(slots) and",
        named("tests/integration/test_mysql.py", "half_done"),
    ),
    Mutation(
        "mysql: a stranger's second password makes room",
        "vaultkeeper/access/mysql/slots.py",
        "    if len(keep) > room:\n        return None\n",
        "    keep = set(accept)\n",
        named("tests/integration/test_mysql.py", "leaves_no_room"),
    ),
    Mutation(
        "mysql: a server that asks for the password readable gets it",
        "vaultkeeper/access/mysql/wire.py",
        '        return b""\n',
        "        return self._password\n",
        named("tests/unit/access/test_mysql_wire.py", "wants_the_password"),
    ),
    Mutation(
        "mysql: two writers meet",
        "vaultkeeper/access/mysql/target.py",
        "[0][0] != 1:",
        "[0][0] == 7:",
        named("tests/integration/test_mariadb_faults.py", "two_writers"),
    ),
    # ------------------------------------------------------------------------------------------- by hand, and budgets
    Mutation(
        "by hand: what nobody can see revoked counts as dead",
        f"{ENGINE}/judge.py",
        "        if only_a_person_revokes(rotation) and not rotation.options.revoked:\n",
        "        if False:\n",
        named(BY_HAND, "without_proof_only_a_persons_word"),
    ),
    Mutation(
        "by hand: what an overtaken rotation left may live on",
        f"{ENGINE}/at_target.py",
        "    for version in (*_not_revoked_either(work, old), old):\n",
        "    for version in (old,):\n",
        named(BY_HAND, "overtaken"),
    ),
    Mutation(
        "by hand: the old value is imported as the new one",
        f"{ENGINE}/importing.py",
        "    _refuse_old(policy, fields, parts, where)\n",
        "",
        named(BY_HAND, "no_value_of_this_secret or leaked_value"),
    ),
    Mutation(
        "budget: an address without one of its kind's own has none",
        f"{ENGINE}/budget.py",
        "    return None if is_here(address) else Budget(account, address, *EVERYWHERE, own=False)\n",
        "    return None\n",
        named(BUDGET, "look_like_an_attack"),
    ),
    Mutation(
        "budget: consumers of single wait for it in the gap",
        f"{ENGINE}/observe.py",
        "        if delay is not None and (charged.own or not rushed):\n",
        "        if delay is not None:\n",
        named(BUDGET, "gap_of_single or look_like_an_attack"),
    ),
]


def copied(root: Path, to: Path) -> None:
    """Everything that git would keep, as it stands in the working tree."""
    listed = subprocess.run(
        ["git", "ls-files", "-z", "--cached", "--others", "--exclude-standard"],
        cwd=root,
        check=True,
        capture_output=True,
    ).stdout.decode()
    for name in filter(None, listed.split("\0")):
        source, target = root / name, to / name
        if source.is_file():
            target.parent.mkdir(parents=True, exist_ok=True)
            shutil.copy2(source, target)


def tested(tree: Path, tests: tuple[str, ...]) -> subprocess.CompletedProcess[str]:
    """Run tests of the copy, which comes before any installed package."""
    path = os.pathsep.join([str(tree), str(tree / "scripts/lib")])
    command = [sys.executable, "-m", "pytest", "-x", "-q", "-n0", "-p", "no:cacheprovider", *tests]
    environment = os.environ | {"PYTHONPATH": path, "PYTHONDONTWRITEBYTECODE": "1"}
    return subprocess.run(
        command, cwd=tree, env=environment, capture_output=True, text=True, check=False, timeout=PATIENCE_S
    )


def together(chosen: list[Mutation]) -> list[tuple[str, str, str]]:
    """The tests of all of them, one run for each file."""
    words: dict[str, dict[str, None]] = {}
    for mutation in chosen:
        file, _, expression = mutation.tests
        words.setdefault(file, {})[f"({expression})"] = None
    return [named(file, " or ".join(expressions)) for file, expressions in words.items()]


def tried(mutation: Mutation, tree: Path) -> str:
    """Empty where its tests found it; else what is wrong."""
    file = tree / mutation.file
    true = file.read_text(encoding="utf-8")
    if true.count(mutation.old) != 1:
        return f"its text stands {true.count(mutation.old)} times in {mutation.file}"
    file.write_text(true.replace(mutation.old, mutation.new), encoding="utf-8")
    try:
        code = tested(tree, mutation.tests).returncode
    except subprocess.TimeoutExpired:
        return ""  # it does not even end
    finally:
        file.write_text(true, encoding="utf-8")
    if code == RED:
        return ""
    return "survived" if code == GREEN else f"proves nothing: pytest ended with {code}"


def main(words: list[str]) -> int:
    chosen = [m for m in MUTATIONS if not words or any(word in m.what for word in words)]
    with tempfile.TemporaryDirectory(prefix="vaultkeeper-mutations-") as folder:
        tree = Path(folder)
        copied(Path.cwd(), tree)
        for tests in together(chosen):
            sound = tested(tree, tests)
            if sound.returncode != GREEN:
                print(f"{' '.join(tests)}: not green without any mutation\n{sound.stdout[-2000:]}", file=sys.stderr)
                return 1
        wrong = 0
        for mutation in chosen:
            began = time.monotonic()
            failure = tried(mutation, tree)
            wrong += bool(failure)
            print(
                f"{'✗' if failure else '✓'} {mutation.what:74} {time.monotonic() - began:5.1f} s  {failure}", flush=True
            )
    print(f"{len(chosen)} mutations, {len(chosen) - wrong} found" + (f", {wrong} NOT" if wrong else ""))
    return int(wrong > 0)


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
