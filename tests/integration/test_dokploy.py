"""Delivering to a simulated Dokploy: one key changes, Swarm's word counts and not Dokploy's, and it all goes back."""

from __future__ import annotations

import json
import time
from collections.abc import Callable
from dataclasses import replace

import pytest
from pydantic import ValidationError

from tests.integration.delivery_kit import Delivery, version
from tests.integration.dokploy_kit import OLD_TEXT, Shop, pair, shop, value
from vaultkeeper.destinations.dokploy import DokployDestination
from vaultkeeper.model.outcome import (
    Confirmed,
    Done,
    Failed,
    Held,
    Holds,
    No,
    NotYet,
    Prepared,
    Proof,
    Refused,
    Unknown,
)
from vaultkeeper.model.secret import SecretVersion
from vaultkeeper.ports import Deadline
from vaultkeeper.testing.dokploy.server import Seen

__all__ = ["shop"]  # the fixture


def refusal(answer: object) -> str:
    assert isinstance(answer, Refused), answer
    return answer.detail


# ------------------------------------------------------------------------------------------------------ one key changes


def test_one_key_changes_and_every_other_character_and_field_stays(shop: Shop) -> None:
    _, new = pair()
    assert shop.delivery().hand_over(new) == Done()
    spelled = new.fields["password"].text()
    assert shop.env == OLD_TEXT.replace('"old one"', spelled)
    (saved,) = shop.called("application.saveEnvironment")
    assert {name: saved[name] for name in ("buildArgs", "buildSecrets", "createEnvFile")} == {
        "buildArgs": "ARG=1",
        "buildSecrets": "NPM=2",
        "createEnvFile": True,
    }
    assert shop.running == {"DB_PASSWORD": spelled, "OTHER": "kept # so"}


def test_going_back_puts_the_old_spelling_back_and_keeps_what_others_changed_since(shop: Shop) -> None:
    old, new = pair()
    delivery = shop.delivery()
    assert delivery.hand_over(new) == Done()
    shop.service.row["env"] = "# theirs\r\n" + shop.env + "ADDED=since\n"
    for _ in range(2):
        assert delivery.deliver(old) == Done()
    assert shop.env == "# theirs\r\n" + OLD_TEXT + "ADDED=since\n"
    assert shop.confirmed(delivery, old) == Confirmed(Proof.DEMONSTRATED)
    assert shop.running["DB_PASSWORD"] == "old one"


def test_a_key_that_was_not_there_is_added_and_taken_away_again(shop: Shop) -> None:
    _, new = pair()
    delivery = shop.delivery({"NEW_KEY": "{password}"})
    assert delivery.hand_over(new) == Done()
    assert shop.env == f"{OLD_TEXT}NEW_KEY={new.fields['password'].text()}\r\n"
    assert delivery.deliver(None) == Done()
    assert shop.env == OLD_TEXT


@pytest.mark.parametrize("bad", ["x{{y", "a\0b", "a\rb", "it's `\"#", "trailing # and \\"])
def test_what_cannot_stand_there_is_refused_before_anything_is_changed(shop: Shop, bad: str) -> None:
    delivery = shop.delivery()
    answer = delivery.prepare(version(2, bad))
    assert isinstance(answer, Refused)
    assert answer.why is No.VALUE
    assert bad not in answer.detail
    assert shop.env == OLD_TEXT
    assert shop.called("application.saveEnvironment") == []


def test_an_environment_that_is_still_encrypted_is_never_written(shop: Shop) -> None:
    shop.service.row["env"] = "enc:v1:c29tZXRoaW5n"
    assert "still encrypted" in refusal(shop.delivery().prepare(pair()[1]))
    assert "still encrypted" in refusal(shop.delivery().deliver(pair()[1]))
    assert shop.called("application.saveEnvironment") == []


def test_compose_values_are_only_those_that_compose_reads_unchanged(shop: Shop) -> None:
    worker = shop.add("compose", "worker", "DB_PASSWORD=old\n")
    delivery = shop.delivery(compose=worker.id)
    assert "Compose reads" in refusal(delivery.prepare(version(2, "pa$$word")))
    assert isinstance(delivery.prepare(version(2, "plain-1")), Prepared)


def test_where_compose_has_no_save_of_its_own_it_is_updated(shop: Shop, monkeypatch: pytest.MonkeyPatch) -> None:
    from vaultkeeper.testing.dokploy.calls import POSTS

    monkeypatch.delitem(POSTS, "compose.saveEnvironment")
    worker = shop.add("compose", "worker", "DB_PASSWORD=old\n")
    shop.member.may_create = True
    assert shop.delivery(compose=worker.id).hand_over(version(2, "plain-1")) == Done()
    assert worker.row["env"] == "DB_PASSWORD=plain-1\n"


# ------------------------------------------------------------------------------------------------------------- the race


def test_a_write_that_another_editor_overwrote_is_seen_and_repeated(shop: Shop) -> None:
    _, new = pair()
    delivery = shop.delivery()
    delivery.prepare(new)
    saves: list[bool] = []

    def overwrite(seen: Seen) -> None:
        """They read before us and save after us, once."""
        if saves and not saves[0]:
            shop.service.row["env"] = "# theirs alone\n"
            saves[0] = True
        if seen.procedure == "application.saveEnvironment" and not saves:
            saves.append(False)

    shop.dokploy.before.append(overwrite)
    answer = delivery.deliver(new)
    assert isinstance(answer, Refused)
    assert answer.why is No.CONFLICT
    assert delivery.deliver(new) == Done()
    assert shop.env == f"# theirs alone\nDB_PASSWORD={new.fields['password'].text()}\n"


def test_between_reading_and_writing_there_is_no_other_call(shop: Shop) -> None:
    assert shop.delivery().hand_over(pair()[1]) == Done()
    calls = [seen.procedure for seen in shop.dokploy.seen]
    assert calls[calls.index("application.saveEnvironment") - 1] == "application.one"


# ----------------------------------------------------------------------------------------------------- what really runs


def test_a_confirm_waits_until_the_containers_run_on_it_longer_than_swarm_watches(shop: Shop) -> None:
    _, new = pair()
    delivery = shop.delivery()
    delivery.hand_over(new)
    first = delivery.confirm(new)
    assert isinstance(first, NotYet)
    before = shop.dokploy.state.now()
    assert shop.confirmed(delivery, new) == Confirmed(Proof.DEMONSTRATED)
    assert shop.dokploy.state.now() - before >= 10


def test_swarm_going_back_while_dokploy_says_done_is_a_failure(shop: Shop) -> None:
    old, new = pair()
    shop.service.breaks_on = lambda env: env.get("DB_PASSWORD") == new.fields["password"].text()
    delivery = shop.delivery()
    assert delivery.hand_over(new) == Done()
    answer = shop.confirmed(delivery, new)
    assert isinstance(answer, Failed)
    assert "went back" in answer.why
    assert shop.service.row["applicationStatus"] == "done"
    assert delivery.deliver(old) == Done()
    assert shop.confirmed(delivery, old) == Confirmed(Proof.DEMONSTRATED)
    assert shop.env == OLD_TEXT


def test_a_reference_that_names_nothing_is_refused_before_and_a_failure_after(shop: Shop) -> None:
    _, new = pair()
    delivery = shop.delivery()
    assert delivery.prepare(new)
    shop.service.row["env"] = OLD_TEXT + "LATER=${{project.MISSING}}\n"
    assert delivery.deliver(new) == Done()
    answer = delivery.confirm(new)
    assert isinstance(answer, Failed)
    assert "status error" in answer.why
    assert "MISSING" in refusal(shop.delivery().prepare(new))


def test_without_the_right_and_without_a_probe_it_waits_and_names_both(shop: Shop) -> None:
    shop.member.sees_docker = False
    _, new = pair()
    delivery = shop.delivery()
    delivery.hand_over(new)
    answer = shop.confirmed(delivery, new, polls=20)
    assert isinstance(answer, NotYet)
    assert "docker" in answer.reason
    assert "`confirm`" in answer.reason
    findings = delivery.destination.check(delivery.group, delivery.items(new), delivery.ctx)
    assert [(f.level, "docker:read" in f.text) for f in findings] == [("warn", True)]


def test_without_the_right_a_probe_counts_once_no_container_ended_in_an_error(shop: Shop) -> None:
    shop.member.sees_docker = False
    _, new = pair()
    delivery = shop.delivery(confirm={"command": ["/bin/true"]})
    delivery.hand_over(new)
    assert shop.confirmed(delivery, new) == Confirmed(Proof.DEMONSTRATED)
    failing = shop.delivery(confirm={"command": ["/bin/false"]})
    failing.hand_over(new)
    assert isinstance(shop.confirmed(failing, new, polls=10), NotYet)


def test_without_the_right_a_container_that_ended_in_an_error_is_a_failure_even_where_the_probe_is_happy(
    shop: Shop,
) -> None:
    shop.member.sees_docker = False
    old, new = pair()
    shop.service.breaks_on = lambda env: env.get("DB_PASSWORD") == new.fields["password"].text()
    delivery = shop.delivery(confirm={"command": ["/bin/true"]})
    delivery.hand_over(new)
    shop.dokploy.state.advance(8)
    assert isinstance(shop.confirmed(delivery, new), Failed)
    assert delivery.deliver(old) == Done()
    assert shop.confirmed(delivery, old) == Confirmed(Proof.DEMONSTRATED)


def test_a_container_on_another_machine_needs_a_probe(shop: Shop) -> None:
    shop.service.elsewhere = True
    _, new = pair()
    delivery = shop.delivery()
    delivery.hand_over(new)
    answer = shop.confirmed(delivery, new, polls=10)
    assert isinstance(answer, NotYet)
    assert "cannot inspect" in answer.reason


def test_another_service_whose_name_begins_alike_is_not_taken_for_this_one(shop: Shop) -> None:
    other = shop.add("application", "other", "DB_PASSWORD=theirs\n")
    other.row["appName"] = f"{shop.service.row['appName']}-two"
    other.breaks_on = lambda _env: True
    for sees in (True, False):
        shop.member.sees_docker = sees
        _, new = pair()
        delivery = shop.delivery(confirm={"command": ["/bin/true"]})
        delivery.hand_over(new)
        shop.dokploy.state.roll(other)
        assert shop.confirmed(delivery, new) == Confirmed(Proof.DEMONSTRATED)


def test_a_version_still_running_is_held_even_where_the_text_has_another(shop: Shop) -> None:
    old, new = pair()
    delivery = shop.delivery()
    shop.service.row["env"] = OLD_TEXT.replace("old one", "edited by hand")
    (item,) = delivery.items(new, accepted=(new, old))
    assert delivery.destination.holds(delivery.group, old, item, delivery.ctx) is Holds.RUNNING
    assert delivery.observe(new, old) == {"DB_PASSWORD": Held(None, foreign=True)}


# ------------------------------------------------------------------------------------------------------------ the queue


def test_compose_is_redeployed_under_a_title_and_confirmed_when_that_is_done(shop: Shop) -> None:
    worker = shop.add("compose", "worker", "DB_PASSWORD=old\n")
    delivery = shop.delivery(compose=worker.id, confirm={"command": ["/bin/true"]})
    new = version(2, value())
    assert delivery.hand_over(new) == Done()
    assert isinstance(delivery.confirm(new), NotYet)
    assert shop.confirmed(delivery, new) == Confirmed(Proof.DEMONSTRATED)
    assert [record["title"] for record in worker.deployments] == ["vaultkeeper: shop/db v2 id-2"]
    assert delivery.deliver(new) == Done()
    assert len(shop.called("compose.redeploy")) == 1


def test_a_queue_that_dokploy_forgot_is_not_taken_for_a_deployment(shop: Shop) -> None:
    worker = shop.add("compose", "worker", "DB_PASSWORD=old\n")
    delivery = shop.delivery(compose=worker.id, confirm={"command": ["/bin/true"]})
    old, new = version(1, "old"), version(2, value())
    delivery.hand_over(new)
    shop.dokploy.state.restart()
    answer = shop.confirmed(delivery, new, polls=20)
    assert isinstance(answer, NotYet)
    assert "forgets" in answer.reason
    assert delivery.deliver(old) == Done()
    assert shop.confirmed(delivery, old) == Confirmed(Proof.DEMONSTRATED)
    assert worker.row["env"] == "DB_PASSWORD=old\n"


def test_a_deployment_that_fails_is_a_failure_and_an_older_one_of_that_title_is_not_ours(shop: Shop) -> None:
    delivery = shop.delivery(apply="redeploy")
    _, new = pair()
    title = "vaultkeeper: shop/db v2 id-2"
    shop.service.deployments.append({"deploymentId": "earlier", "title": title, "status": "done"})
    delivery.prepare(new)
    shop.service.row["env"] = OLD_TEXT + "LATER=${{project.MISSING}}\n"
    assert delivery.deliver(new) == Done()
    assert isinstance(delivery.confirm(new), NotYet)
    answer = shop.confirmed(delivery, new)
    assert isinstance(answer, Failed)
    assert "error" in answer.why


@pytest.mark.parametrize("title", ["vaultkeeper: shop/db v2 id-2", "commit: fix a typo"])
def test_a_deploy_of_a_git_repository_is_known_although_it_takes_the_commits_title(shop: Shop, title: str) -> None:
    delivery = shop.delivery(apply="deploy")
    _, new = pair()
    delivery.hand_over(new)
    shop.dokploy.state.jobs[0].title = title
    assert shop.confirmed(delivery, new) == Confirmed(Proof.DEMONSTRATED)


def test_a_database_is_deployed_and_one_that_takes_too_long_is_looked_at_instead(shop: Shop) -> None:
    database = shop.add("postgres", "pg", "EXTRA=old\n")
    delivery = shop.delivery({"EXTRA": "{password}"}, postgres=database.id, apply="deploy")
    new = version(2, value())
    delivery.prepare(new)
    with shop.dokploy.fault("lost-reply", "postgres.deploy", times=1):
        assert delivery.deliver(new) == Done()
    assert shop.confirmed(delivery, new) == Confirmed(Proof.DEMONSTRATED)
    assert shop.called("postgres.saveEnvironment") == [
        {"postgresId": database.id, "env": f"EXTRA={new.fields['password'].text()}\n"}
    ]


def test_two_secrets_of_one_service_are_saved_at_once_and_go_back_each_by_itself(shop: Shop) -> None:
    shop.service.row["env"] = "A=a1\nB=b1\n"
    both = Delivery.of(
        DokployDestination.open(), shop.spec({"A": "{password}"}), shop.spec({"B": "{password}"})
    )  # fmt: skip
    assert both.hand_over(version(2, "a2"), version(2, "b2")) == Done()
    assert shop.env == "A=a2\nB=b2\n"
    assert len(shop.called("application.reload")) == 1
    assert both.deliver(version(1, "a1"), version(2, "b2")) == Done()
    assert shop.env == "A=a1\nB=b2\n"


@pytest.mark.parametrize(
    ("settings", "said"),
    [
        ({}, "give one of"),
        ({"application": "a", "project": "p"}, "give one of"),
        ({"postgres": "p"}, "must say `apply: deploy`"),
        ({"compose": "c", "apply": "reload"}, "no `reload`"),
        ({"project": "p", "by_reference": True}, "goes with a service"),
    ],
)
def test_settings_that_cannot_be_meant_are_refused(settings: dict[str, object], said: str) -> None:
    with pytest.raises(ValidationError, match=said):
        DokployDestination.Settings.model_validate({"url": "https://d.test", "api_key": {"env": "K"}, **settings})


# ----------------------------------------------------------------------------------------------------- shared variables


def shared(shop: Shop) -> Delivery:
    shop.add("application", "api", "URL=pg://u:${{project.SHARED}}@db\n")
    shop.add("application", "bystander", "A=1\n")
    shop.service.row["env"] = "PASSWORD=${{project.SHARED}}\n"
    shop.dokploy.state.roll(shop.service)
    shop.dokploy.state.advance(30)
    shop.dokploy.seen.clear()
    return shop.delivery({"SHARED": "{password}"}, project="shop")


def test_a_shared_variable_is_changed_and_everyone_who_refers_to_it_runs_on_it(shop: Shop) -> None:
    delivery = shared(shop)
    old, new = version(1, "p one"), version(2, value())
    assert delivery.hand_over(new) == Done()
    assert len(shop.called("application.reload")) == 2
    assert shop.confirmed(delivery, new) == Confirmed(Proof.DEMONSTRATED)
    assert shop.running["PASSWORD"] == new.fields["password"].text()
    assert delivery.deliver(old) == Done()
    assert shop.confirmed(delivery, old) == Confirmed(Proof.DEMONSTRATED)
    assert shop.project["env"] == "SHARED='p one'\n"


def test_one_of_them_that_cannot_run_on_it_fails_for_all(shop: Shop) -> None:
    delivery = shared(shop)
    new = version(2, value())
    shop.service.breaks_on = lambda env: env.get("PASSWORD") == new.fields["password"].text()
    delivery.hand_over(new)
    answer = shop.confirmed(delivery, new)
    assert isinstance(answer, Failed)
    assert answer.consumer == "application web"


def test_a_right_that_is_missing_for_one_of_them_puts_the_others_back(shop: Shop) -> None:
    delivery = shared(shop)
    api = next(s for s in shop.dokploy.state.services.values() if s.row["name"] == "api")
    shop.member.not_deployed.add(api.id)
    answer = delivery.hand_over(version(2, value()))
    assert isinstance(answer, Refused)
    assert shop.project["env"] == "SHARED='p one'\n"
    assert shop.running["PASSWORD"] == "p one"


def test_a_variable_that_only_refers_is_not_overwritten_and_the_right_one_is_named(shop: Shop) -> None:
    shop.service.row["env"] = "DB_PASSWORD=' ${{project.SHARED}} '\nB=${{environment.STAGE}}\nC=${{B}}\n"
    delivery = shop.delivery()
    answer = delivery.prepare(pair()[1])
    assert "project's variable SHARED" in refusal(answer)
    (finding,) = delivery.destination.check(delivery.group, delivery.items(pair()[1]), delivery.ctx)
    assert finding.level == "refuse"
    assert "`project:`" in finding.next
    assert "environment's variable STAGE" in refusal(shop.delivery({"B": "{password}"}).prepare(pair()[1]))
    assert "its key B" in refusal(shop.delivery({"C": "{password}"}).prepare(pair()[1]))


def test_nobody_who_refers_is_told_by_check(shop: Shop) -> None:
    delivery = shop.delivery({"SHARED": "{password}"}, environment="shop/production")
    shop.environment["env"] = "SHARED='old one'\n"
    items = delivery.items(pair()[0])
    (finding,) = delivery.destination.check(delivery.group, items, delivery.ctx)
    assert (finding.level, "no service" in finding.text) == ("warn", True)


# --------------------------------------------------------------------------------------------------------- by reference


def test_by_reference_the_text_stays_and_containers_must_have_the_vaults_new_value(shop: Shop) -> None:
    text = "DB_PASSWORD='${{vault.bao.shop/db:password}}'\n"
    shop.service.row["env"] = text
    old, new = pair()
    shop.dokploy.state.vault["bao", "shop/db:password"] = "old one"
    delivery = shop.delivery(by_reference=True)
    assert delivery.hand_over(new) == Done()
    assert isinstance(shop.confirmed(delivery, new, polls=20), NotYet)  # the vault still has the old one
    shop.dokploy.state.vault["bao", "shop/db:password"] = new.fields["password"].text()
    assert delivery.deliver(new) == Done()
    assert shop.confirmed(delivery, new) == Confirmed(Proof.DEMONSTRATED)
    assert delivery.observe(new, old) == {"DB_PASSWORD": Held(2)}
    assert shop.env == text
    assert shop.called("application.saveEnvironment") == []


def test_by_reference_too_a_crash_is_seen_without_the_right_and_the_way_back_is_confirmed(shop: Shop) -> None:
    shop.service.row["env"] = "DB_PASSWORD='${{vault.bao.shop/db:password}}'\n"
    vault, where = shop.dokploy.state.vault, ("bao", "shop/db:password")
    old, new = pair()
    vault[where] = "old one"
    shop.member.sees_docker = False
    shop.service.breaks_on = lambda env: env.get("DB_PASSWORD") == new.fields["password"].text()
    delivery = shop.delivery(by_reference=True, confirm={"command": ["/bin/true"]})
    delivery.prepare(new)
    vault[where] = new.fields["password"].text()
    assert delivery.deliver(new) == Done()
    shop.dokploy.state.advance(8)
    assert isinstance(shop.confirmed(delivery, new), Failed)
    vault[where] = "old one"
    assert delivery.deliver(old) == Done()
    assert shop.confirmed(delivery, old) == Confirmed(Proof.DEMONSTRATED)


def test_by_reference_a_value_that_dokploy_would_cut_is_refused(shop: Shop) -> None:
    shop.service.row["env"] = "DB_PASSWORD=${{vault.bao.shop/db:password}}\n"
    delivery = shop.delivery(by_reference=True)
    assert "before it reads the quotes" in refusal(delivery.prepare(version(2, "a#b")))
    assert isinstance(delivery.prepare(version(2, "a-b")), Prepared)


def test_a_reference_to_a_vault_must_be_meant(shop: Shop) -> None:
    assert "no reference" in refusal(shop.delivery(by_reference=True).prepare(pair()[1]))
    shop.service.row["env"] = "DB_PASSWORD=${{vault.bao.shop/db:password}}\n"
    assert "secrets provider" in refusal(shop.delivery().prepare(pair()[1]))


# ----------------------------------------------------------------------------------------------------- names and rights


def test_a_name_is_found_once_and_its_id_is_kept_when_the_name_moves_to_another_service(shop: Shop) -> None:
    delivery = shop.delivery(application="shop/production/web")
    _, new = pair()
    assert isinstance(delivery.prepare(new), Prepared)
    shop.service.row["name"] = "web-before"
    shop.add("application", "web", "DB_PASSWORD=another\n")
    assert delivery.deliver(new) == Done()
    assert new.fields["password"].text() in shop.env
    later = shop.delivery(application="shop/production/web")  # the next rotation goes to where the name leads by then
    ((level, text),) = checked(later, new)
    assert (level, "does not hold v2" in text) == ("warn", True)
    shop.add("application", "spare", f"DB_PASSWORD={new.fields['password'].text()}\n")
    assert [level for level, _ in checked(shop.delivery(application="shop/production/spare"), new)] == ["ok"]


def checked(delivery: Delivery, carried: SecretVersion) -> list[tuple[str, str]]:
    items = delivery.items(carried)
    return [(f.level, f.text) for f in delivery.destination.check(delivery.group, items, delivery.ctx)]


@pytest.mark.parametrize(
    ("name", "said"), [("shop/production/nope", "no application"), ("shop/x/web", "no application")]
)
def test_a_name_that_leads_nowhere_is_refused(shop: Shop, name: str, said: str) -> None:
    assert said in refusal(shop.delivery(application=name).prepare(pair()[1]))


def test_one_service_that_policies_call_by_id_and_by_name_is_refused_in_each_but_the_first(shop: Shop) -> None:
    """To us it would be two groups with a lock each, and two that save one text side by side lose a change."""
    by_name = shop.delivery(application="shop/production/web")
    by_id = replace(by_name, specs=[shop.spec()], receipts={})
    assert isinstance(by_name.prepare(pair()[1]), Prepared)
    assert isinstance(by_name.prepare(pair()[1]), Prepared)
    answer = by_id.prepare(pair()[1])
    assert isinstance(answer, Refused)
    assert "'shop/production/web' in one policy" in answer.detail
    (found,) = by_id.destination.check(by_id.group, by_id.items(pair()[1]), by_id.ctx)
    assert (found.level, found.next) == ("refuse", "call it the same in all policies")


def test_two_services_of_one_name_are_refused(shop: Shop) -> None:
    shop.add("application", "web", "")
    assert "more than one" in refusal(shop.delivery(application="shop/production/web").prepare(pair()[1]))


def test_a_right_that_is_missing_when_it_is_applied_leaves_the_text_as_it_was(shop: Shop) -> None:
    shop.member.may_deploy = False
    answer = shop.delivery().hand_over(pair()[1])
    assert isinstance(answer, Refused)
    assert answer.why is No.PRIVILEGE
    assert "application.reload" in answer.detail
    assert shop.env == OLD_TEXT


def test_putting_back_keeps_what_somebody_saved_since(shop: Shop) -> None:
    shop.member.may_deploy = False

    def add_theirs(seen: Seen) -> None:
        if seen.procedure == "application.reload":
            shop.service.row["env"] += "THEIRS=1\r\n"

    shop.dokploy.before.append(add_theirs)
    assert isinstance(shop.delivery().hand_over(pair()[1]), Refused)
    assert shop.env == OLD_TEXT + "THEIRS=1\r\n"


@pytest.mark.parametrize("after", ["application.saveEnvironment", "application.reload"])
def test_a_key_that_is_refused_after_the_save_is_not_taken_for_nothing_done(shop: Shop, after: str) -> None:
    """Refused would mean that the text is the old one, and the target alone would be put back."""
    delivery, new = shop.delivery(), pair()[1]
    delivery.prepare(new)
    reached: list[str] = []

    def spend(seen: Seen) -> None:
        if reached:
            shop.dokploy.state.keys.clear()
        elif seen.procedure == after:
            reached.append(after)

    shop.dokploy.before.append(spend)
    with shop.dokploy.fault("lost-reply" if after == "application.reload" else "none", after, times=1):
        answer = delivery.deliver(new)
    assert new.fields["password"].text() in shop.env
    assert isinstance(answer, Unknown)
    assert "its sixth call is refused" in answer.detail


@pytest.mark.parametrize("gone", ["key", "encryption"])
def test_what_cannot_be_looked_at_after_the_save_is_nobodys_failure(shop: Shop, gone: str) -> None:
    """Going back could not be written either, and would leave consumers with a value that is then refused."""
    delivery, new = shop.delivery(), pair()[1]
    assert delivery.hand_over(new) == Done()
    if gone == "key":
        shop.dokploy.state.keys.clear()
    else:
        shop.service.row["env"] = "enc:v1:c29tZXRoaW5n"
    answer = delivery.confirm(new)
    assert isinstance(answer, Unknown)
    assert {"key": "its sixth call is refused", "encryption": "enc:v1:"}[gone] in answer.detail


# -------------------------------------------------------------------------------------------------------- when it fails

FAULTS: dict[str, tuple[type[object], str]] = {
    "lost-reply": (Unknown, "reached"),
    "redirect": (Refused, "redirect"),
    "html": (Unknown, "web page"),
    "empty": (Unknown, "something else"),
    "429": (Unknown, "too many requests"),
    "500": (Unknown, "failed with 500"),
    "unreachable": (Unknown, "reached"),
}


@pytest.mark.parametrize("fault", FAULTS)
def test_each_failure_is_an_error_of_its_own_and_holds_no_value(shop: Shop, fault: str) -> None:
    delivery, new = shop.delivery(), pair()[1]
    delivery.prepare(new)
    kind, said = FAULTS[fault]
    with shop.dokploy.fault(fault):
        answer = delivery.deliver(new)
        found = delivery.destination.check(delivery.group, delivery.items(new), delivery.ctx)
    assert isinstance(answer, kind), answer
    assert isinstance(answer, Refused | Unknown)
    assert said in answer.detail
    assert found[0].level == ("refuse" if kind is Refused else "unchecked")
    assert found[0].next
    assert shop.env == OLD_TEXT
    assert delivery.deliver(new) == Done()


def test_a_reply_that_drips_does_not_outlast_the_deadline(shop: Shop) -> None:
    delivery, new = shop.delivery(), pair()[1]
    items, ctx = delivery.items(new), replace(delivery.ctx, deadline=Deadline(time.monotonic() + 1))
    with shop.dokploy.fault("dripping"):
        answer = delivery.destination.deliver(delivery.group, items, ctx)
    assert isinstance(answer, Unknown)
    assert "in time" in answer.detail


def test_a_redirect_is_never_followed_with_the_key(shop: Shop) -> None:
    with shop.dokploy.fault("redirect"):
        shop.delivery().prepare(pair()[1])
    assert [seen.procedure for seen in shop.dokploy.seen] == []


def test_a_refused_key_tells_of_the_limit_that_default_keys_have(shop: Shop) -> None:
    limited = shop.dokploy.state.key(shop.member, limited=True)
    (shop.folder / "key").write_text(limited.value)
    answers = [shop.delivery().prepare(version(2, f"v{n}")) for n in range(6)]
    assert [isinstance(answer, Prepared) for answer in answers] == [True] * 5 + [False]
    assert "its sixth call is refused" in refusal(answers[5])


def test_the_two_kinds_of_401_are_told_apart(shop: Shop) -> None:
    shop.member.services.clear()
    assert "may not call application.one" in refusal(shop.delivery().prepare(pair()[1]))
    (shop.folder / "key").write_text("wrong")
    assert "the API key was refused" in refusal(shop.delivery().prepare(pair()[1]))
    assert "nothing of that id" in refusal(owner(shop).delivery(application="x" * 21).prepare(pair()[1]))


def owner(shop: Shop) -> Shop:
    (shop.folder / "key").write_text(shop.dokploy.state.key(shop.dokploy.state.user()).value)
    return shop


CALLS = ("application.one", "application.saveEnvironment", "application.reload", "docker.")


@pytest.mark.parametrize("procedure", CALLS)
@pytest.mark.parametrize("fault", ["lost-reply", "500", "empty"])
def test_a_reply_lost_at_any_call_is_made_good_by_delivering_again(shop: Shop, procedure: str, fault: str) -> None:
    old, new = pair()
    delivery = shop.delivery()
    delivery.prepare(new)
    for carried, text in ((new, OLD_TEXT.replace('"old one"', new.fields["password"].text())), (old, OLD_TEXT)):
        with shop.dokploy.fault(fault, procedure, times=1):
            answer = delivery.deliver(carried)
        assert isinstance(answer, Done | Unknown) or (isinstance(answer, Refused) and answer.why is No.CONFLICT)
        for _ in range(3):
            if delivery.deliver(carried) == Done():
                break
        assert shop.confirmed(delivery, carried) == Confirmed(Proof.DEMONSTRATED)
        assert shop.env == text


def test_an_empty_reply_to_a_save_is_believed_only_when_it_is_read_back(shop: Shop) -> None:
    delivery, new = shop.delivery(), pair()[1]
    delivery.prepare(new)
    with shop.dokploy.fault("empty", "application.saveEnvironment", times=1):  # nothing was saved
        answer = delivery.deliver(new)
    assert isinstance(answer, Refused)
    assert answer.why is No.CONFLICT
    assert shop.env == OLD_TEXT


# ------------------------------------------------------------------------------------------------------------- no value


def everything(shop: Shop, delivery: Delivery, new: object) -> list[Callable[[], object]]:
    items = delivery.items(new)  # type: ignore[arg-type]
    hooks = delivery.destination
    return [
        lambda: hooks.prepare(delivery.group, items, delivery.ctx),
        lambda: hooks.deliver(delivery.group, items, delivery.ctx),
        lambda: hooks.confirm(delivery.group, items, delivery.ctx),
        lambda: hooks.observe(delivery.group, items, delivery.ctx),
        lambda: hooks.check(delivery.group, items, delivery.ctx),
    ]


def test_no_answer_repr_or_log_holds_the_key_or_a_value_whatever_fails(
    shop: Shop, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level("DEBUG")
    _, new = pair()
    seen: list[str] = []
    for fault in ("", *FAULTS):
        for call in everything(shop, shop.delivery(), new):
            with shop.dokploy.fault(fault or "none"):
                try:
                    seen.append(repr(call()))
                except Exception as error:  # noqa: BLE001 - its text is what is looked at
                    seen.append(repr(error) + str(error) + repr(error.__cause__) + repr(error.__context__))
    text = "\n".join([*seen, caplog.text])
    for hidden in (
        new.fields["password"].text(),
        shop.key,
        "kept # so",
        "old one",
        str(shop.service.row["refreshToken"]),
    ):
        assert hidden not in text, hidden
        assert json.dumps(hidden)[1:-1] not in text
