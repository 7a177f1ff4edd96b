"""Lines of user:hash and web configurations: what changes, what stays byte for byte, what is refused."""

from __future__ import annotations

import bcrypt
import pytest
import yaml

from vaultkeeper.access import htpasswd
from vaultkeeper.access.answer import Answered
from vaultkeeper.access.htpasswd import Account, Format
from vaultkeeper.model.outcome import No, Refused

LINE_FORMATS: tuple[Format, ...] = ("apache", "nginx", "registry", "traefik")


def account(name: str, password: str) -> Account:
    return Account(name, password.encode(), htpasswd.hashed(password.encode(), 4))


A, B, THEIRS = account("shop_a", "one"), account("shop_b", "two"), account("theirs", "three")


def edited(before: bytes, form: Format, accept: list[Account], refuse: list[Account] = []) -> bytes:  # noqa: B006
    users = htpasswd.parse(before, form)
    htpasswd.edit(users, accept, refuse)
    return users.encode()


def line(of: Account) -> bytes:
    return of.name.encode() + b":" + of.hash + b"\n"


@pytest.mark.parametrize("form", LINE_FORMATS)
def test_lines_that_are_not_ours_stay_byte_for_byte(form: Format) -> None:
    before = b"# people\r\n\n  \nbob:$apr1$x$y:a comment\r\n" + line(A) + b"no colon\neve:{PLAIN}z \t\n\xff\xfe:old"
    if form == "traefik":
        before = before.replace(b":a comment", b"").replace(b"no colon", b" # a:comment: too")
    both = edited(before, form, [B, A])
    assert both == before + b"\n" + line(B)
    assert edited(both, form, [B, A]) == both
    assert edited(both, form, [B], [A]) == both.replace(line(A), b"")
    assert edited(both, form, [A], [B]) == before + b"\n"


@pytest.mark.parametrize("other", [b"bob:x:a comment", b"no colon", b" \tbob \r"])
def test_a_line_that_would_take_traefiks_route_away_is_refused_by_its_number(other: bytes) -> None:
    with pytest.raises(Answered, match=r"line 3 has not just one colon") as caught:
        edited(b"# people: two: of them\n\n" + other + b"\n" + line(A), "traefik", [B])
    assert isinstance(caught.value.result, Refused)
    assert caught.value.result.why is No.UNSUPPORTED
    assert "bob" not in str(caught.value)
    assert edited(other + b"\n" + line(A), "registry", [B]) == other + b"\n" + line(A) + line(B)


def test_a_line_is_replaced_where_it_stands_and_keeps_its_end() -> None:
    before = line(THEIRS) + b"shop_a:old\r\n" + line(B)[:-1]
    assert edited(before, "nginx", [A]) == line(THEIRS) + line(A)[:-1] + b"\r\n" + line(B)[:-1]


def test_a_line_whose_hash_fits_is_left_as_it_is() -> None:
    other = bcrypt.hashpw(b"one", bcrypt.gensalt(4))  # another salt, made by hand
    before = b"shop_a:" + other + b"\n"
    assert edited(before, "registry", [A]) == before


@pytest.mark.parametrize(("form", "counts"), [("nginx", 0), ("apache", 0), ("registry", 1), ("traefik", 1)])
def test_of_two_lines_the_one_counts_that_the_reader_takes_and_a_set_leaves_one(form: Format, counts: int) -> None:
    before = b"shop_a:" + B.hash + b"\n" + line(THEIRS) + line(A)
    found = htpasswd.accepts(htpasswd.parse(before, form), A)
    assert found is (counts == 1)
    assert edited(before, form, [A]) == line(A) + line(THEIRS)


def test_refusing_leaves_no_second_line_that_would_count_then() -> None:
    shadowed = account("shop_a", "an older one")
    before = line(A) + line(THEIRS) + line(shadowed)
    assert edited(before, "nginx", [], [A]) == line(THEIRS)


def test_a_password_that_somebody_else_set_stays_when_ours_is_refused() -> None:
    before = b"shop_a:" + B.hash + b"\n"
    assert edited(before, "nginx", [], [A]) == before


def test_a_hash_that_cannot_be_checked_goes_when_its_user_is_refused_and_is_replaced_when_accepted() -> None:
    before = b"shop_a:$apr1$salt$hash\n" + line(THEIRS)
    assert htpasswd.accepts(htpasswd.parse(before, "nginx"), A) is None
    assert edited(before, "nginx", [], [A]) == line(THEIRS)
    assert edited(before, "nginx", [A]) == line(A) + line(THEIRS)


@pytest.mark.parametrize("stored", [b"$2x$04$" + b"a" * 53, b"$2b$31$" + b"a" * 53, b"$2b$03$" + b"a" * 53, b"", b"!"])
def test_hashes_that_are_wrong_or_would_take_for_ever_are_not_tried(stored: bytes) -> None:
    assert htpasswd.holds(stored, A) is None


def test_an_account_whose_password_an_accepted_one_has_too_is_not_refused() -> None:
    assert edited(line(A), "nginx", [A], [account("shop_a", "one")]) == line(A)


@pytest.mark.parametrize(("form", "same"), [("nginx", False), ("apache", True), ("registry", True), ("traefik", True)])
def test_a_blank_before_a_name_is_a_part_of_it_for_nginx_alone(form: Format, same: bool) -> None:
    assert (htpasswd.parse(b" " + line(A), form).effective("shop_a") is not None) is same


@pytest.mark.parametrize(
    "name", ["o'brien", 'a"b', "50%", "me@example.com", "Zoë 漢字", "a,b", "back\\slash", "yes", "1"]
)
def test_names_of_all_sorts_are_found_again(name: str) -> None:
    one = account(name, "p")
    for form in (*LINE_FORMATS, *sorted(htpasswd.YAML)):
        before = b"basic_auth_users: {theirs: x}\n" if form in htpasswd.YAML else line(THEIRS)
        after = edited(before, form, [one])
        assert htpasswd.accepts(htpasswd.parse(after, form), one) is True
        assert edited(after, form, [], [one]) == before
    said = yaml.safe_load(edited(b"", "prometheus", [one]))
    assert said == {"basic_auth_users": {name: one.hash.decode()}}


@pytest.mark.parametrize("password", [b"x" * 73, b"a\0b"])
def test_what_bcrypt_cannot_tell_apart_is_refused_and_not_shown(password: bytes) -> None:
    with pytest.raises(ValueError, match="72 bytes") as caught:
        htpasswd.hashed(password, 4)
    assert "xxx" not in str(caught.value)


# ------------------------------------------------------------------------------------------------------ web configs

WEB = """\
# by hand
tls_server_config:
    cert_file: "server.crt"   # ours
    cipher_suites:
      - TLS_A
http_server_config: {http2: off}
basic_auth_users:
    # people
    bob: '$2y$10$bob'  # until May
    shop_a: HASH   # made by hand
    # machines
    "yes": $2y$10$yes

# the end
"""


def test_other_keys_users_and_comments_of_a_web_config_stay_byte_for_byte() -> None:
    before = WEB.replace("HASH", A.hash.decode()).encode()
    both = edited(before, "prometheus", [B, A])
    added = f'    "yes": $2y$10$yes\n    "shop_b": "{B.hash.decode()}"\n'.encode()
    assert both == before.replace(b'    "yes": $2y$10$yes\n', added)
    assert edited(both, "prometheus", [B, A]) == both
    assert edited(both, "prometheus", [A], [B]) == before
    removed = f"    shop_a: {A.hash.decode()}   # made by hand\n".encode()
    assert edited(both, "alertmanager", [B], [A]) == both.replace(removed, b"")
    changed = account("shop_a", "another")
    said = before.replace(A.hash, b'"' + changed.hash + b'"')
    assert edited(before, "prometheus", [changed], [A]) == said


@pytest.mark.parametrize(
    "before", ["", "# nothing\n", "a: 1", "basic_auth_users:", "a: 1\nbasic_auth_users: # none\nb: 2\n"]
)
@pytest.mark.parametrize("none", ["", " {}", " null", " ~"])
def test_a_web_config_without_users_gets_its_first(before: str, none: str) -> None:
    text = before.replace("basic_auth_users:", f"basic_auth_users:{none}")
    after = edited(text.encode(), "prometheus", [A])
    rest = {key: value for key, value in (yaml.safe_load(text) or {}).items() if key != "basic_auth_users"}
    assert yaml.safe_load(after) == {**rest, "basic_auth_users": {"shop_a": A.hash.decode()}}
    assert text.count("#") == after.decode().count("#")


@pytest.mark.parametrize("users", ["{shop_a: A, bob: x}", "{bob: x, shop_a: A}", "{ bob: x , shop_a: A , eve: y }"])
def test_a_list_in_one_line_stays_one(users: str) -> None:
    before = f"basic_auth_users: {users.replace('A', A.hash.decode())} # all\nb: 2\n".encode()
    both = edited(before, "prometheus", [B])
    assert both.count(b"\n") == 2
    assert edited(both, "prometheus", [], [B]).replace(b" ", b"") == before.replace(b" ", b"")
    left = yaml.safe_load(edited(before, "prometheus", [], [A]))["basic_auth_users"]
    assert left == {
        name: value for name, value in yaml.safe_load(before)["basic_auth_users"].items() if name != "shop_a"
    }


@pytest.mark.parametrize(
    "text",
    [
        "a: 1\na: 2\n", "- a\n", "a: [", "--- 1\n--- 2\n", "basic_auth_users: [a]\n", "basic_auth_users: {a: {b: c}}\n",
        "basic_auth_users: {a: x, a: y}\n", "b: &u {shop_a: x}\nbasic_auth_users: *u\n",
        "b: &u {c: x}\nbasic_auth_users: {<<: *u}\n", "{a: 1}\n", "a: 1\n...\n", "\udcff",
        "basic_auth_users:\n  a: x\n  shop_a: |\n    x\n# end\n",
    ],
)  # fmt: skip
def test_what_cannot_be_edited_without_harm_is_refused_and_not_quoted(text: str) -> None:
    with pytest.raises(Answered) as caught:
        edited(
            text.encode(errors="surrogateescape"), "prometheus", [B], [account("shop_a", "x")] if "|" in text else []
        )
    assert isinstance(caught.value.result, Refused)
    assert caught.value.result.why is No.UNSUPPORTED
    assert "a: x" not in str(caught.value)
