"""The first policy of the front page and of the how-to is true: its statements, adopt and rotate on a real server."""

from __future__ import annotations

import json
import re
from pathlib import Path

import pytest

from tests.cli.conftest import Vk
from tests.conftest import StartPostgres

ROOT = Path(__file__).parents[2]
ADMIN = "the-rotator-s-own"
PAGES = {"README.md": "database-url", "docs/how-to/first-policy.md": ".env"}  # page → the file that its consumer reads


@pytest.mark.parametrize("page", PAGES)
def test_the_first_policy_of_the_page_adopts_the_owners_own_login_and_rotates(
    installed: Vk, home: Path, new_postgres: StartPostgres, page: str
) -> None:
    server = new_postgres()
    server.execute("CREATE ROLE shop LOGIN PASSWORD 'made by hand'")
    server.execute("CREATE DATABASE shop OWNER shop")
    found = re.search(r"```yaml\n(# policies/shop\.yaml\n.*?)```", (ROOT / page).read_text(), re.DOTALL)
    assert found
    text = found[1].replace("host: db.internal", f"host: 127.0.0.1\n      port: {server.port}\n      timeout: 1min")
    text = text.replace("@db.internal", f"@127.0.0.1:{server.port}").replace("/usr/bin/systemctl", "/usr/bin/true")
    for folder in ("/run/secrets", "/etc/vaultkeeper", "/srv/shop", "/etc/shop"):
        text = text.replace(folder, str(home / "out"))
    (home / "policies").mkdir()
    (home / "policies/shop.yaml").write_text(text)
    (home / "out").mkdir()
    for name in ("vk_pg_admin", "pg-admin"):
        (home / "out" / name).touch(0o600)
        (home / "out" / name).write_text(ADMIN)
    (secret,) = installed("check", "--offline", "--json").json["secrets"]

    statements = installed("doctor", "--sql")
    assert statements.code == 0, statements.err
    asks_for_a_password = '\\password "vk_rotator"'
    assert asks_for_a_password in statements.out
    first_way, _, _ = statements.out.partition("-- OR by functions")
    run = first_way.replace(asks_for_a_password, f"ALTER ROLE vk_rotator PASSWORD '{ADMIN}';").splitlines()
    absent = ('GRANT "shop_a"', 'GRANT "shop_b"', "\\", "SELECT EXISTS")  # accounts, and what only psql understands
    exist = [line for line in run if not line.startswith(absent)]
    with server.connect() as connection:
        connection.execute("\n".join(exist).encode())
    adopted = installed("adopt", secret, stdin=json.dumps({"username": "shop", "password": "made by hand"}))
    assert adopted.code == 0, adopted.err
    checked = installed("check")
    assert checked.code == 0, checked.out + checked.err
    ran = installed("rotate", secret, "--json")
    assert ran.code == 0, ran.out + ran.err
    assert ran.json["rotations"][0]["to_version"] == 2

    delivered = (home / "out" / PAGES[page]).read_text()
    assert "shop_a" in delivered
    password = installed("get", secret, "--field", "password").out
    assert server.login("shop_a", password, database="shop")
    assert server.login("shop", "made by hand")  # retire_first_owner: keep
