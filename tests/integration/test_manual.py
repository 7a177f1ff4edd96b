"""A vendor's key that only people make and revoke: by the real command, at a process that people and programs ask."""

from __future__ import annotations

import json
import re
import shutil
from collections.abc import Iterator
from dataclasses import dataclass, field
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest

from tests.cli.conftest import Ran, command, on_a_terminal
from tests.integration.hunter import Hunter
from tests.integration.shop_kit import identity_of, installed, state_of
from tests.servers import TestAccount
from tests.servers.manual import VendorServer, start
from vaultkeeper import wiring
from vaultkeeper.engine.importing import import_value
from vaultkeeper.engine.parts import Parts
from vaultkeeper.engine.rotate import Report, resume
from vaultkeeper.errors import PolicyInvalid, RotationFailed
from vaultkeeper.model.secret import SecretBytes
from vaultkeeper.policyfile.load import load
from vaultkeeper.registry import Registry
from vaultkeeper.targets.manual import ManualTarget
from vaultkeeper.testing.contract.trial import version
from vaultkeeper.wiring.places import Wishes

NAME = "shop/vendor-key"
OWNER = "payments@example.com"
STRANGE = 'o\'brien "&" söhne, 100%@home'
EXAMPLE = Path(__file__).parents[2] / "policies/manual.yaml"


@pytest.fixture(scope="module")
def vendor() -> Iterator[VendorServer]:
    server = start()
    yield server
    server.stop()


@dataclass
class Desk:
    """One installation with one secret at the vendor. `values`: all that ever worked there, for the hunt."""

    home: Path
    vendor: VendorServer
    account: TestAccount
    said: list[str] = field(default_factory=list)
    values: dict[str, str] = field(default_factory=dict)

    def policy(self, **more: Any) -> None:
        """JSON is YAML. The consumer is seen to run on it, so that no grace is needed."""
        pair = bool(self.account.username)
        template = "{username}:{password}" if pair else "{value}"
        file: dict[str, Any] = {
            "kind": "file",
            "path": "../out/key",
            "read": "at_start",
            "value": template,
            "healthy_for": "0s",
        }
        file |= {"reload": {"command": ["/bin/true"]}, "confirm": {"command": ["/bin/true"]}}
        fields = {"fields": ["username", "password"]} if pair else {}
        body = {
            "owner": OWNER,
            "rotation_period": "180d",
            "grace_period": "0s",
            "min_interval": "0s",
            **fields,
            "target": {"kind": "manual", **self.account.settings},
            "destinations": [file],
            **more,
        }
        (self.home / "policies/manual.yaml").write_text(json.dumps({"secrets": {NAME: body}}))

    def spelt(self, value: str) -> str:
        """As it is given on stdin."""
        return json.dumps({"username": self.account.username, "password": value}) if self.account.username else value

    def run(self, *arguments: str, stdin: str = "", code: int = 0) -> Ran:
        ran = command(self.home)(*arguments, stdin=stdin)
        self.said.append(ran.out + ran.err)
        assert ran.code == code, f"{arguments} exited {ran.code}\n{ran.out}{ran.err}"
        return ran

    def entry(self, *arguments: str, stdin: str = "", code: int = 0) -> dict[str, Any]:
        (found,) = self.run(*arguments, "--json", stdin=stdin, code=code).json["rotations"]
        return dict(found)

    def makes(self) -> str:
        """What the owner does on the page."""
        value = self.vendor.make(self.account)
        self.values[f"value {len(self.values)}"] = value
        return value

    def works(self, value: str) -> bool:
        return self.vendor.login(self.account.username, value)

    def delivered(self) -> str:
        return (self.home / "out/key").read_text()

    @property
    def wishes(self) -> Wishes:
        return Wishes(state_of(self.home), self.home / "policies", identity_of(self.home))


def desk(folder: Path, vendor: VendorServer, account: TestAccount) -> Desk:
    made = Desk(installed(folder), vendor, account, values={"adopted": account.password})
    made.policy()
    made.run("adopt", NAME, stdin=made.spelt(account.password) + "\n")
    return made


def test_a_reminder_an_import_and_the_end_of_the_old_value(vendor: VendorServer, tmp_path: Path) -> None:
    """The whole story, told by the texts that people and scripts see; then every sink is searched for the values."""
    place = desk(tmp_path, vendor, vendor.account())
    page, old = str(place.account.settings["link"]), place.account.password
    colleagues = vendor.foreign(place.account)
    plan = place.run("plan").out
    assert f"create    {OWNER} makes a new value at {page}; then   vaultkeeper import {NAME}" in plan
    assert f"prove     {OWNER} revokes the old value at {page}; then   vaultkeeper resume {NAME}" in plan
    assert "only a person can change it" in place.entry("rotate", "--all")["detail"]
    asked = place.entry("rotate", NAME)
    assert (asked["state"], asked["next"]) == ("waiting", f"vaultkeeper import {NAME}")
    assert asked["detail"] == f"waiting (input); {OWNER} makes a new value at {page}; next: vaultkeeper import {NAME}"
    reminded = place.run("rotate", "--due").out
    assert "reminder, due 20" in reminded
    assert page in reminded
    told = place.run("status").out
    assert re.search(rf"{NAME} +waiting +v1 .*in 1\d\dd.*{OWNER} makes a new value at {page}", told)
    place.run("rotate", NAME, code=7)

    for wrong, why in {old: "this is the value of v1, which is current", old[:30]: "shorter than min_length"}.items():
        refused = place.run("import", NAME, stdin=wrong, code=2)
        assert why in refused.err
        assert wrong not in refused.err
    dead = place.entry("import", NAME, stdin="vk_live_" + "0123456789abcdef" * 3, code=5)
    assert dead["state"] == "rolled_back"

    new = place.makes()
    done = place.entry("import", NAME, stdin=f"{new}\n", code=0)
    assert (done["state"], done["next"]) == ("waiting", f"vaultkeeper resume {NAME}   once it is revoked")
    assert f"v1 is still accepted; {OWNER} revokes it at {page}" in done["detail"]
    assert place.delivered() == new
    assert [place.works(value) for value in (old, new)] == [True, True]
    place.run("import", NAME, stdin=place.makes(), code=7)
    vendor.revoke(place.account, old)
    assert place.entry("resume", NAME)["state"] == "done"
    assert place.run("status", "--json").json["secrets"][0]["unverified"] == ""

    vendor.revoke(place.account, new)
    ways = f"vaultkeeper import {NAME}   with a new value, or   vaultkeeper adopt {NAME}   with the value that works"
    lost = place.run("rotate", NAME, code=6)
    assert f"next   {ways}" in lost.err
    leaked = place.entry("rotate", NAME, "--emergency", code=6)
    assert leaked["next"] == ways
    newest = place.makes()
    assert place.entry("import", NAME, stdin=newest)["state"] == "done"
    assert (place.delivered(), vendor.login(*colleagues)) == (newest, True)

    hunter = Hunter(place.values)
    hunter.look("output", "\n".join(place.said))
    hunter.look("the vendor's access log", "\n".join(vendor.log()))
    hunter.look_into("home", state_of(place.home))
    assert hunter.hits == []
    assert hunter.looked_at["output"] > 5_000
    assert any(line == "GET /v1/account 401 vaultkeeper" for line in vendor.log())


GOOD = "vk_live_" + "a1B2c3D4" * 5


@pytest.mark.parametrize(
    ("value", "fault"),
    [
        (GOOD, ""),
        ("rk_live_" + GOOD[8:], "it does not begin with `vk_live_` or `vk_test_`"),
        (GOOD[:20], "it is shorter than min_length, 40: was it cut when it was copied?"),
        (GOOD * 2, "it is longer than max_length, 60: was something copied along with it?"),
        (GOOD[:12] + "•" * 32, "it looks masked: a page often shows a part of a key, and the whole one only once"),
        (
            GOOD[:12] + "..." + GOOD[:30],
            "it looks masked: a page often shows a part of a key, and the whole one only once",
        ),
        ("vk_live_" + "*" * 40, "it looks like a placeholder"),
        ("vk_live_<paste your new live key from the page here>", "it looks like a placeholder"),
        (f"{GOOD} ", "it begins or ends with white space (of newlines at the end only one is dropped)"),
        (f"{GOOD}\n", "it begins or ends with white space (of newlines at the end only one is dropped)"),
        ("vk_live_\x1b[200~" + GOOD[8:], "it holds control characters"),
        (f"vk_live_ü{GOOD[8:]}", "it holds what the header of the probe cannot carry; use a `{command: …}`"),
    ],
)
def test_what_cannot_be_right_is_told_by_its_looks_and_never_quoted(value: str, fault: str) -> None:
    probe = {"http": "http://127.0.0.1:9/", "accepted": [200]}
    rules = {"prefix": ["vk_live_", "vk_test_"], "min_length": 40, "max_length": 60}
    target = ManualTarget.open({"probe": probe, **rules}, 1)
    faults = target.faults({"value": SecretBytes(value.encode())})
    assert fault in faults if fault else faults == []
    assert GOOD[8:20] not in "".join(faults)
    several = target.faults({"value": SecretBytes(value.encode()), "other": SecretBytes(GOOD.encode())})
    assert several == [text.replace("it ", "`value` ", 1) for text in faults]


def test_rules_are_by_field_and_a_word_for_a_field_that_is_none_is_told_with_the_place() -> None:
    rules = {"prefix": {"secret": "sk-"}, "min_length": {"secret": 10}, "verify": "none", "reason": "a test"}
    target = ManualTarget.open(rules, 1)
    assert target.faults({"id": SecretBytes(b"7"), "secret": SecretBytes(b"sk-123456789")}) == []
    assert target.faults({"id": SecretBytes(b"7"), "secret": SecretBytes(b"pk-1")})[0].startswith("`secret` does not")
    assert target.misfits(["id", "key"]) == [
        "`prefix` names the field secret, expected id or key",
        "`min_length` names the field secret, expected id or key",
    ]
    asks = ManualTarget.open({"probe": {"http": "http://127.0.0.1:9/"}}, 1)
    assert asks.misfits(["id", "key"]) == ["the probe carries one field: expected `field`, one of id, key"]
    assert asks.misfits(["value"]) == []
    with pytest.raises(ValueError, match="Basic wants user and password together"):
        ManualTarget.open({"probe": {"http": "http://127.0.0.1:9/", "scheme": "Basic"}}, 1)


def test_a_policy_is_held_to_the_fields_that_it_names(tmp_path: Path) -> None:
    body = {
        "fields": ["username", "password"],
        "target": {"kind": "manual", "verify": "none", "reason": "a test", "min_length": {"password": 40, "pass": 1}},
        "destinations": [{"kind": "file", "path": "out", "read": "per_use", "value": "{username}:{passwort}"}],
    }
    (tmp_path / "manual.yaml").write_text(json.dumps({"secrets": {NAME: body}}))
    with pytest.raises(PolicyInvalid) as refused:
        load([tmp_path], Registry())
    first, second = refused.value.why.splitlines()
    assert "no field `passwort`; did you mean `password`?" in first + second
    assert "`min_length` names the field pass, expected username or password" in first + second


def test_a_decoy_looks_like_the_value_and_is_another() -> None:
    target = ManualTarget.open({"prefix": "vk_live_", "verify": "none", "reason": "a test"}, 1)
    old = version(1, {"value": SecretBytes(GOOD.encode())}, "manual", {})
    decoy = target.decoy(old)
    assert decoy is not None
    assert len(decoy.fields["value"].text()) == len(GOOD)
    assert decoy.fields["value"].text().startswith("vk_live_")
    assert decoy.fields != old.fields


def test_five_in_a_row_with_several_fields_and_a_program_that_is_asked(vendor: VendorServer, tmp_path: Path) -> None:
    place = desk(tmp_path, vendor, vendor.pair(STRANGE))
    before = place.account.password
    opened = wiring.open_installed(place.wishes)
    parts = wiring.parts(opened, place.wishes, parallel=1)
    for number in range(2, 7):
        value = place.makes()
        assert _given(parts, place, value).rotation is not None
        assert place.delivered() == f"{STRANGE}:{value}"
        assert [place.works(v) for v in (before, value)] == [True, True]
        vendor.revoke(place.account, before)
        (report,) = resume([NAME], parts)
        assert (report.state, report.rotation and report.rotation.to_version) == ("done", number)
        before = value
    opened.store.close()
    incomplete = place.run("import", NAME, stdin=json.dumps({"password": before}), code=2)
    assert "the value was given without username" in incomplete.err
    assert '{"username": "…", "password": "…"}' in place.run("import", NAME, stdin="bare", code=2).err


def _given(parts: Parts, place: Desk, value: str) -> Report:
    fields = {"username": place.account.username, "password": value} if place.account.username else {"": value}
    return import_value(NAME, {name: SecretBytes(text.encode()) for name, text in fields.items()}, parts)


def test_on_a_terminal_each_field_is_asked_for_without_echo(vendor: VendorServer, tmp_path: Path) -> None:
    place = desk(tmp_path, vendor, vendor.pair("terminal"))
    value = place.makes()
    answers = {f"{NAME} username: ": "terminal", f"{NAME} password: ": value, "deliver it now? [y/N]": "y"}
    code, shown = on_a_terminal(place.home, "import", NAME, answers=answers)
    assert (code, value in shown) == (0, False)
    assert place.delivered() == f"terminal:{value}"


def test_whatever_the_vendor_says_nothing_is_lost(vendor: VendorServer, tmp_path: Path) -> None:
    place = desk(tmp_path, vendor, vendor.account())
    opened = wiring.open_installed(place.wishes)
    parts = wiring.parts(opened, place.wishes, parallel=1)
    value = place.makes()
    for fault, why in {"unreachable": "waiting (unreachable)", "throttled": "waiting (throttled)"}.items():
        with vendor.fault(fault), pytest.raises(RotationFailed) as told:
            import_value(NAME, {"": SecretBytes(value.encode())}, parts, wait=timedelta(0))
        assert "the value was not stored" in str(told.value)
        assert why in told.value.why
    with vendor.fault("accepts-all"):
        report = _given(parts, place, value)
    assert report.rotation is not None
    assert (report.state, report.rotation.cause and report.rotation.cause.value) == ("parked", "checks_nothing")
    opened.store.close()
    assert not (place.home / "out/key").exists()
    place.run("rollback", NAME, "--yes", code=5)
    assert place.entry("import", NAME, stdin=value)["state"] == "waiting"
    assert place.delivered() == value


def test_the_example_takes_a_key_from_the_page_to_the_service(vendor: VendorServer, tmp_path: Path) -> None:
    """The policy of policies/, with another address: nothing can be proven, so a person says so."""
    place = desk(tmp_path, vendor, vendor.account())
    shutil.copy(EXAMPLE, place.home / "policies/manual.yaml")
    (name,) = load([EXAMPLE], Registry())
    text = (place.home / "policies/manual.yaml").read_text()
    text = re.sub(r"enabled: false.*", "min_interval: 0s", text).replace("/run/shop", str(place.home / "out"))
    (place.home / "policies/manual.yaml").write_text(re.sub(r"grace_period: \w+", "grace_period: 1s", text))
    place.run("import", name, stdin="rk_live_first" + "x1y2" * 8)
    done = place.entry("import", name, stdin="rk_live_second" + "x1y2" * 8)
    assert done["next"] == f"vaultkeeper resume {name} --revoked   once it is revoked"
    assert "unverified: " in done["detail"]
    place.run("resume", "--all")
    assert "waiting" in place.run("status").out
    assert place.entry("resume", name, "--revoked")["state"] == "done"
    assert "a person said that the old value is revoked" in place.run("status").out
