"""A simulator of a MySQL server, for tests: logins, accounts with two passwords, privileges, sessions.

It is no server of anybody: it keeps everything in memory and knows only the statements that its files name, each with
the section of the manual that says what it does (https://dev.mysql.com/doc/refman/8.4/en/). The tests that hold it to
that also run against a real server, and passed on 9.7.4. PyMySQL and MariaDB's client library talk to it. Start it on
loopback:

    server = MysqlServer()              # server.port, server.socket_path, server.root_password
    server.state.globals["read_only"] = 1
    server.general_log                  # statements as the general log shows them: passwords rewritten
    server.stop()
"""

from vaultkeeper.testing.mysql.server import MysqlServer
from vaultkeeper.testing.mysql.state import State

__all__ = ["MysqlServer", "State"]
