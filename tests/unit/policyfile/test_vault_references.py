"""{vault: PATH, field: F} and where its server comes from."""

from __future__ import annotations

from tests.unit.policyfile.conftest import Folder

SERVER = "url: 'https://bao:8200', auth: {token: {file: token}}"
HEAD = f"connections: {{bao: {{kind: file, path: x, {SERVER}, mount: kv}}, other: {{kind: file}}}}\nsecrets:\n"


def admin(password: str) -> str:
    target = "kind: database, host: h, strategy: overlap, user: u"
    body = f"generator: {{kind: password}}, target: {{{target}, admin: {{username: a, password: {password}}}}}"
    return f"{HEAD}  s: {{{body}, destinations: []}}\n"


def password(folder: Folder, reference: str) -> object:
    target = folder.load(admin(reference))["s"].target
    assert target is not None
    found = target.settings["admin"]
    assert isinstance(found, dict)
    return found["password"]


def test_a_connection_gives_the_server_and_nothing_else(folder: Folder) -> None:
    assert password(folder, "{vault: ops/pg, field: password, use: bao}") == {
        "vault": "ops/pg",
        "field": "password",
        "url": "https://bao:8200",
        "mount": "kv",
        "auth": {"token": {"file": str(folder.path / "token")}},
    }


def test_keys_beside_use_win_and_use_is_not_needed(folder: Folder) -> None:
    kept = password(folder, "{vault: a, field: b, use: bao, mount: mine}")
    assert isinstance(kept, dict)
    assert kept["mount"] == "mine"
    alone = password(folder, f"{{vault: a, field: b, {SERVER}, ca: ca.pem}}")
    assert isinstance(alone, dict)
    assert alone["ca"] == str(folder.path / "ca.pem")
    assert "mount" not in alone


def test_secrets_that_its_login_names_are_dependencies_to_check(folder: Folder) -> None:
    (error,) = folder.errors(admin("{vault: a, field: b, url: 'https://x', auth: {token: {secret: nobody}}}"))
    assert "s.target.admin.password.auth.token.secret: no secret `nobody`" in error


def test_what_is_wrong_is_told_at_its_place(folder: Folder) -> None:
    for reference, told in (
        ("{vault: a, field: b, use: nope}", "password.use: no such connection `nope`"),
        ("{vault: a, field: b, use: other}", "password: expected {vault: PATH, field: F} with `use: CONNECTION`"),
        (
            "{vault: a, field: b, url: 'https://x/y', auth: {token: {env: T}}}",
            "password.url: expected the server alone",
        ),
        ("{vault: ../a, field: b, use: bao}", "password.vault: expected a path such as shop/db"),
        ("{vault: a, field: b, use: bao, moun: x}", "unknown key; did you mean `mount`?"),
        ("{vault: a, field: b, url: 'https://x', auth: {token: hunter22}}", "a credential never stands in a policy"),
        (
            "{vault: a, field: b, url: 'https://x', auth: {token: {vault: c, field: d, use: bao}}}",
            "password.auth: expected references to something else",
        ),
    ):
        errors = folder.errors(admin(reference))
        assert any(told in error for error in errors), (reference, errors)
        assert "hunter22" not in str(errors)
