"""The contract of every target, run against a real server where one can be started, and against simulators."""

from __future__ import annotations

import time
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime, timedelta
from functools import partial
from typing import ClassVar

import pytest

from vaultkeeper.model.outcome import Basis, Done, Login, No, NotYet, Observation, Refused, Tag, Unknown, Usage
from vaultkeeper.model.secret import SecretBytes, SecretVersion, Strategy, main_field
from vaultkeeper.ports import ByHand, ClosesSessions, Explains, Mints, ReportsUse, Target
from vaultkeeper.testing import servers
from vaultkeeper.testing.contract.trial import (
    INSTALLATION,
    SECRET,
    Raised,
    Watch,
    canary,
    difficult,
    unanswered,
    version,
)
from vaultkeeper.testing.servers import Account, HoldsForeign, MadeByHand, Server, Settles

NOT_SETTINGS = frozenset({"kind", "strategy", "use", "via", "verify", "reason", "persisted_by"})
"""Keys of `target:` that belong to the policy, not to the kind."""


@dataclass
class Trial:
    """One account, the target opened for it, and the version that works today."""

    contract: TargetContract
    server: Server
    account: Account
    target: Target
    old: SecretVersion
    watch: Watch = field(default_factory=Watch)

    @property
    def overlaps(self) -> bool:
        """May two versions be accepted at once? The account's settings may say its strategy."""
        capabilities = self.target.capabilities
        only_one = capabilities.max_accepted == 1 or capabilities.strategies == {Strategy.SINGLE}
        return not only_one and self.account.settings.get("strategy") != Strategy.SINGLE.value

    def username(self, of: SecretVersion) -> str:
        return of.fields["username"].text() if "username" in of.fields else self.account.username

    def new(self, number: int = 2, value: str | None = None) -> SecretVersion:
        """A version as the engine makes one while `old` is CURRENT. Minted: really minted."""
        if isinstance(self.target, Mints):
            blank = version(number, {}, self.target.kind, self.account.settings)
            ends = datetime.now(UTC) + timedelta(days=30)  # a simulator's clock may run fast
            minted = self.target.mint(blank.id, ends, self.watch.context(self.old))
            assert isinstance(minted, tuple), minted
            return replace(blank, fields=minted[0], handle=minted[1])
        if isinstance(self.server, MadeByHand):
            value = self.server.make(self.account)
        given = {self.contract.field: SecretBytes((value or canary()).encode())}
        if isinstance(self.server, MadeByHand) and self.account.username:
            given["username"] = SecretBytes(self.account.username.encode())
        fields = self.target.complete(given, self.watch.context(self.old), adopting=False)
        return version(number, fields, self.target.kind, self.account.settings)

    def wrong(self, beside: SecretVersion) -> SecretVersion:
        """A login of the same account with a value that was never set."""
        main = main_field(set(beside.fields))
        given = {name: value for name, value in beside.fields.items() if name == "username"}
        given[main] = SecretBytes(canary("vk-wrong-").encode())
        fields = self.target.complete(given, self.watch.context(self.old), adopting=True)
        return version(99, fields, self.target.kind, self.account.settings)

    def set(self, accept: Sequence[SecretVersion], refuse: Sequence[SecretVersion], epoch: int = 1) -> object:
        """What the engine does to make it so, and its answer. NotYet: asked again, only sooner than it says."""
        if isinstance(self.server, MadeByHand):
            return self.watch.call(partial(self._by_hand, self.server, accept, refuse))
        until = time.monotonic() + self.watch.seconds
        while True:
            answer = self.watch.call(lambda: self.contract.change(self, accept, refuse, epoch))
            if not isinstance(answer, NotYet) or time.monotonic() > until:
                break
            time.sleep(min(answer.after.total_seconds(), 0.1))
        if isinstance(self.server, Settles):
            self.server.settle()
        return answer

    def _by_hand(self, server: MadeByHand, accept: Sequence[SecretVersion], refuse: Sequence[SecretVersion]) -> Done:
        kept = [v.fields[main_field(set(v.fields))] for v in accept]
        for value in (v.fields[main_field(set(v.fields))] for v in refuse):
            if value not in kept:
                server.revoke(self.account, value.text())
        return Done()

    def introduce(self, new: SecretVersion, epoch: int = 1) -> None:
        """Make `new` accepted, the old one beside it where that can be."""
        done = self.set([new, self.old], [], epoch) if self.overlaps else self.set([new], [self.old], epoch)
        assert isinstance(done, Done), done

    def test(self, tried: SecretVersion) -> object:
        return self.watch.call(lambda: self.target.test(tried, self.watch.context(self.old)))

    def observe(self, *candidates: SecretVersion) -> Observation:
        seen = self.watch.call(lambda: self.target.observe(candidates, self.watch.context(self.old)))
        assert isinstance(seen, Observation), seen
        return seen

    def logs_in(self, tried: SecretVersion) -> bool:
        """By the independent client."""
        return self.server.login(self.username(tried), tried.fields[main_field(set(tried.fields))].text())


class TargetContract:
    """Inherit it, name `target`, and give a `server`. Tests that a target's capabilities rule out do not apply."""

    target: ClassVar[type[Target]]
    field: ClassVar[str] = "password"  #: the main field of its versions
    faults: ClassVar[frozenset[str]] = frozenset()  #: which of testing.servers' faults the server can do
    tagged: ClassVar[bool] = True  #: False where these settings rule out the tags that the kind has (`admin: self`)

    @pytest.fixture
    def server(self) -> Server:
        raise NotImplementedError("give this contract a server")

    @pytest.fixture
    def trial(self, server: Server) -> Trial:
        return self.begin(server)

    def begin(self, server: Server) -> Trial:
        """A fresh account, adopted as version 1."""
        account = self.account(server)
        settings = {key: value for key, value in account.settings.items() if key not in NOT_SETTINGS}
        opened = self.target.open(settings, self.target.codec)
        given = {self.field: SecretBytes(account.password.encode())}
        if account.username:
            given["username"] = SecretBytes(account.username.encode())
        watch = Watch()
        fields = opened.complete(given, watch.context(), adopting=True)
        return Trial(self, server, account, opened, version(1, fields, opened.kind, settings), watch)

    def account(self, server: Server) -> Account:
        """Override where the account that this contract rotates needs more than the plain one."""
        return server.account()

    def change(
        self, trial: Trial, accept: Sequence[SecretVersion], refuse: Sequence[SecretVersion], epoch: int
    ) -> object:
        """Override for a checker behind a destination, whose change is a delivery of `render`."""
        pending = next((v for v in (*accept, *refuse) if v.number != trial.old.number), None)
        return trial.target.set(accept, refuse, trial.watch.context(trial.old, pending, epoch))

    # ------------------------------------------------------------------------------------------ what it says of itself

    def test_a_kind_describes_itself(self) -> None:
        capabilities = self.target.capabilities
        assert self.target.kind
        assert self.target.codec >= 1
        assert capabilities.strategies
        assert capabilities.max_accepted is None or capabilities.max_accepted >= 1
        assert self.target.Settings.model_json_schema()["properties"]
        assert self.target.Settings.model_config.get("frozen")
        assert all(len(character) == 1 for character in capabilities.forbidden)
        if capabilities.login_budget is not None:  # never more than what every address has
            failures, window = capabilities.login_budget
            assert failures <= 4
            assert window >= timedelta(seconds=60)

    def test_check_finds_nothing_to_refuse_and_changes_nothing(self, trial: Trial) -> None:
        before = trial.observe(trial.old)
        findings = trial.watch.call(lambda: trial.target.check(trial.watch.context(trial.old)))
        assert isinstance(findings, Sequence)
        assert [finding for finding in findings if finding.level == "refuse"] == []
        assert trial.observe(trial.old) == before
        assert trial.logs_in(trial.old)

    def test_complete_keeps_what_it_was_given_and_adopts_the_account_as_it_is(self, trial: Trial) -> None:
        given = {self.field: SecretBytes(trial.account.password.encode())}
        if trial.account.username:
            given["username"] = SecretBytes(trial.account.username.encode())
        for adopting in (True, False):
            fresh = {self.field: given[self.field]} if not adopting else given
            fields = trial.target.complete(fresh, trial.watch.context(trial.old), adopting=adopting)
            assert {name: fields[name] for name in fresh} == fresh

    def test_complete_picks_the_same_account_each_time(self, trial: Trial) -> None:
        if not isinstance(trial.target, Mints):
            assert trial.username(trial.new()) == trial.username(trial.new())

    # ------------------------------------------------------------------------------------------ accept and refuse

    def test_a_new_value_is_accepted_and_the_old_one_beside_it_where_that_can_be(self, trial: Trial) -> None:
        new = trial.new()
        overlaps = trial.overlaps
        trial.introduce(new)
        assert trial.logs_in(new)
        assert trial.logs_in(trial.old) is overlaps

    def test_setting_twice_equals_setting_once(self, trial: Trial) -> None:
        new = trial.new()
        trial.introduce(new)
        once = trial.observe(new, trial.old)
        trial.introduce(new)
        assert trial.observe(new, trial.old) == once
        assert trial.logs_in(new)

    def test_the_old_value_is_refused_when_it_is_retired_and_again_without_harm(self, trial: Trial) -> None:
        new = trial.new()
        trial.introduce(new)
        for _ in range(2):
            assert isinstance(trial.set([new], [trial.old]), Done)
        assert trial.logs_in(new)
        assert not trial.logs_in(trial.old)

    def test_going_back_refuses_the_new_value_and_keeps_the_old(self, trial: Trial) -> None:
        new = trial.new()
        trial.introduce(new)
        for _ in range(2):
            assert isinstance(trial.set([trial.old], [new]), Done)
        assert trial.logs_in(trial.old)
        assert not trial.logs_in(new)

    def test_a_value_that_was_never_there_is_refused_already(self, trial: Trial) -> None:
        never = trial.wrong(trial.old)
        assert isinstance(trial.set([trial.old], [never]), Done)
        assert trial.logs_in(trial.old)

    def test_a_value_that_an_accepted_version_also_holds_is_never_refused(self, trial: Trial) -> None:
        twin = replace(trial.new(), fields=trial.old.fields, handle=trial.old.handle, number=3)
        assert isinstance(trial.set([twin], [trial.old]), Done)
        assert trial.logs_in(trial.old)

    def test_other_peoples_credentials_are_kept(self, trial: Trial) -> None:
        stranger = self.account(trial.server)
        strangers = [(stranger.username, stranger.password)]
        if isinstance(trial.server, HoldsForeign):
            strangers.append(trial.server.foreign(trial.account))
        new = trial.new()
        trial.introduce(new)
        trial.set([new], [trial.old])
        assert [trial.server.login(*login) for login in strangers] == [True] * len(strangers)
        seen = trial.observe(new, trial.old)
        if isinstance(trial.server, HoldsForeign) and seen.basis is Basis.LISTING:
            assert seen.foreign >= 1

    def test_every_character_that_is_not_forbidden_works(self, trial: Trial) -> None:
        if isinstance(trial.target, Mints) or isinstance(trial.server, MadeByHand):
            return
        capabilities = trial.target.capabilities
        for number, value in enumerate(difficult(capabilities.forbidden, capabilities.max_bytes), 2):
            new = trial.new(number, value)
            trial.introduce(new)
            assert trial.logs_in(new)
            assert trial.test(new) is Login.ACCEPTED
            assert isinstance(trial.set([trial.old], [new]), Done)

    def test_a_forbidden_character_is_refused_or_works(self, trial: Trial) -> None:
        for character in sorted(trial.target.capabilities.forbidden)[:3]:
            given = {self.field: SecretBytes(f"vk{character}{canary()}".encode())}
            context = trial.watch.context(trial.old)
            fields = trial.watch.call(lambda g=given, c=context: trial.target.complete(g, c, adopting=False))  # type: ignore[misc]
            if isinstance(fields, Raised):
                continue  # refusing it earlier is as good
            bad = version(2, fields, trial.target.kind, trial.account.settings)
            answer = trial.set([bad, trial.old] if trial.overlaps else [bad], [])
            if isinstance(answer, Done):  # some client cannot take it, but this system can
                assert trial.logs_in(bad)
                assert isinstance(trial.set([trial.old], [bad]), Done)
            assert not isinstance(answer, Refused) or answer.why is No.VALUE
            assert trial.logs_in(trial.old)

    def test_what_only_a_person_changes_is_refused_and_left_as_it_is(self, trial: Trial) -> None:
        if not isinstance(trial.server, MadeByHand):
            return
        new = trial.new()
        context = trial.watch.context(trial.old)
        refused = trial.watch.call(lambda: trial.target.set([new], [trial.old], context))
        assert isinstance(refused, Refused)
        assert refused.why is No.UNSUPPORTED
        assert [trial.logs_in(v) for v in (new, trial.old)] == [True, True]
        assert isinstance(trial.target, ByHand)
        assert trial.target.misfits(sorted(new.fields)) == []
        assert trial.target.faults(new.fields) == []

    # ------------------------------------------------------------------------------------------ observe and test

    def test_one_login_tells_right_from_wrong(self, trial: Trial) -> None:
        if not trial.target.capabilities.probes:
            return
        assert trial.test(trial.old) is Login.ACCEPTED
        assert trial.test(trial.wrong(trial.old)) is Login.REJECTED

    def test_a_new_connection_is_made_for_each_login(self, trial: Trial) -> None:
        if not trial.target.capabilities.probes:
            return
        new = trial.new()
        trial.introduce(new)
        assert trial.test(new) is Login.ACCEPTED
        trial.set([new], [trial.old])
        assert trial.test(trial.old) is Login.REJECTED
        assert trial.test(new) is Login.ACCEPTED

    def test_what_it_observes_is_what_a_login_finds(self, trial: Trial) -> None:
        new = trial.new()
        wrong = trial.wrong(new)
        for step in ("before", "between", "after"):
            if step == "between":
                trial.introduce(new)
            if step == "after":
                trial.set([new], [trial.old])
            seen = trial.observe(trial.old, new, wrong)
            assert seen.basis in trial.target.capabilities.observes
            if seen.basis in (Basis.LOGIN, Basis.NONE):
                assert seen.answers == {}
                continue
            found = {v.number: Login.ACCEPTED if trial.logs_in(v) else Login.REJECTED for v in (trial.old, new)}
            assert seen.answers == {**found, wrong.number: Login.REJECTED}

    def test_only_what_was_asked_is_answered(self, trial: Trial) -> None:
        assert set(trial.observe().answers) == set()
        assert set(trial.observe(trial.old).answers) <= {trial.old.number}

    def test_a_failed_login_is_charged_to_the_account_and_a_decoy_to_nobody_else(self, trial: Trial) -> None:
        key = trial.target.login_key(trial.old)
        assert key == trial.target.login_key(trial.wrong(trial.old))
        if "username" in trial.old.fields:  # policy files know no more: two secrets for one account are refused by it
            named = replace(trial.old, fields={"username": trial.old.fields["username"]})
            assert key == trial.target.login_key(named)
        assert all(isinstance(part, str) for part in key)
        decoy = trial.target.decoy(trial.old)
        if decoy is not None:
            assert trial.test(decoy) is Login.REJECTED
            assert trial.logs_in(trial.old)

    # ------------------------------------------------------------------------------------------ tags

    def test_who_wrote_last_is_written_down(self, trial: Trial) -> None:
        if not (self.tagged and trial.target.capabilities.tags):
            return
        new = trial.new(number=7)
        trial.introduce(new)
        assert trial.observe(new).tag == Tag(INSTALLATION, SECRET, 7, 1)

    def test_a_newer_generation_at_the_target_is_left_alone(self, trial: Trial) -> None:
        if not (self.tagged and trial.target.capabilities.tags):
            return
        newer, stale = trial.new(number=9), trial.new(number=3)
        trial.introduce(newer)
        refused = trial.set([stale], [], epoch=2)
        assert isinstance(refused, Refused)
        assert refused.why is No.STALE
        assert trial.logs_in(newer)
        assert not trial.logs_in(stale)

    def test_an_old_epoch_writes_nothing(self, trial: Trial) -> None:
        if not (self.tagged and trial.target.capabilities.fences):
            return
        new = trial.new()
        trial.introduce(new, epoch=5)
        refused = trial.set([trial.old], [new], epoch=4)
        assert isinstance(refused, Refused)
        assert refused.why is No.STALE
        assert trial.logs_in(new)

    # ------------------------------------------------------------------------------------------ optional powers

    def test_what_was_minted_is_found_by_name_and_dropped_twice(self, trial: Trial) -> None:
        target = trial.target
        if not isinstance(target, Mints):
            return
        new = trial.new()
        assert new.handle is not None
        handle, context = new.handle, trial.watch.context(trial.old)
        assert trial.logs_in(new)
        found = target.find(new.id, context)
        assert isinstance(found, tuple)
        assert found[0] in (None, new.fields)
        assert found[1] == handle
        assert target.find("vk-never-minted", context) is None
        assert [target.drop(handle, context) for _ in range(2)] == [Done()] * 2
        assert target.find(new.id, context) is None
        assert not trial.logs_in(new)
        assert trial.logs_in(trial.old)

    def test_use_is_reported_and_sessions_are_closed_twice(self, trial: Trial) -> None:
        target, context = trial.target, trial.watch.context(trial.old)
        if isinstance(target, ReportsUse):
            usage = target.usage(trial.old, datetime.now(UTC), context)
            assert isinstance(usage, Usage | Unknown)
        if isinstance(target, ClosesSessions):
            assert [target.disconnect(trial.old, context) for _ in range(2)] == [Done()] * 2
            assert trial.logs_in(trial.old)

    # ------------------------------------------------------------------------------------------ faults

    def test_nobody_there_is_never_taken_for_a_refusal(self, trial: Trial) -> None:
        if servers.UNREACHABLE not in self.faults:
            return
        new = trial.new()
        with trial.server.fault(servers.UNREACHABLE):
            answer = trial.set([new], [trial.old])
            assert unanswered(answer) or isinstance(answer, Done)  # a file can be written without its checker
            if trial.target.capabilities.probes:
                assert unanswered(trial.test(trial.old))
            self._observes_nothing_wrong(trial)
        assert trial.logs_in(new if isinstance(answer, Done) else trial.old)
        assert isinstance(trial.set([new], [trial.old]), Done)
        assert trial.logs_in(new)

    def test_a_silent_server_does_not_outlast_the_deadline(self, trial: Trial) -> None:
        if servers.SILENT not in self.faults:
            return
        new = trial.new()
        trial.watch.seconds = 1.0
        with trial.server.fault(servers.SILENT):
            if not isinstance(trial.server, MadeByHand):  # people have patience of their own
                answer = trial.set([new], [trial.old])
                assert unanswered(answer) or isinstance(answer, Done)
            if trial.target.capabilities.probes:
                assert unanswered(trial.test(trial.old))
            findings = trial.watch.call(lambda: trial.target.check(trial.watch.context(trial.old)))
            assert isinstance(findings, Raised) or all(finding.level != "refuse" for finding in findings)

    def test_a_lost_reply_is_unknown_and_setting_again_settles_it(self, trial: Trial) -> None:
        if servers.LOST_REPLY not in self.faults:
            return
        new = trial.new()
        accept = [new, trial.old] if trial.overlaps else [new]
        with trial.server.fault(servers.LOST_REPLY):
            assert unanswered(trial.set(accept, []))
        assert trial.logs_in(new)
        assert isinstance(trial.set(accept, []), Done)
        assert trial.logs_in(new)

    def _observes_nothing_wrong(self, trial: Trial) -> None:
        """Where nobody answers, what is read elsewhere (a file) may still tell, and truly."""
        wrong = trial.wrong(trial.old)
        seen = trial.watch.call(lambda: trial.target.observe([wrong], trial.watch.context(trial.old)))
        assert unanswered(seen) or isinstance(seen, Observation)
        assert not isinstance(seen, Observation) or Login.ACCEPTED not in seen.answers.values()

    # ------------------------------------------------------------------------------------------ no plaintext

    def test_no_answer_and_no_exception_shows_a_value(self, trial: Trial, caplog: pytest.LogCaptureFixture) -> None:
        caplog.set_level("DEBUG")
        new = trial.new()
        wrong = trial.wrong(new)
        trial.introduce(new)
        trial.test(new)
        trial.test(wrong)
        trial.set([new], [trial.old, wrong])
        trial.observe(trial.old, new, wrong)
        trial.watch.call(lambda: trial.target.check(trial.watch.context(trial.old)))
        if isinstance(trial.target, Explains):
            explain, context = trial.target.explain, trial.watch.context(trial.old, new)
            for tried, said in ((new, Login.REJECTED), (trial.old, Login.ACCEPTED), (wrong, Login.REJECTED)):
                trial.watch.call(lambda t=tried, s=said: explain(t, s, context))  # type: ignore[misc]
        if servers.UNREACHABLE in self.faults:
            with trial.server.fault(servers.UNREACHABLE):
                trial.set([new], [wrong])
                trial.test(new)
        trial.watch.answers += [trial.target, trial.target.login_key(new), caplog.text]
        for shown in (trial.old, new, wrong):
            assert trial.watch.shows(shown.fields[main_field(set(shown.fields))].reveal()) == []
