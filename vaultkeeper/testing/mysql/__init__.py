"""A simulator of a MySQL server, for tests: logins, accounts with two passwords, privileges, sessions.

It is no server of anybody: it keeps everything in memory and knows only the statements that its files name, each with
the section of the manual that says what it does (https://dev.mysql.com/doc/refman/8.4/en/). *It was not held to a real
server*; the protocol is spoken to PyMySQL and to MariaDB's client library. Start it on loopback:

    server = MysqlServer()              # server.port, server.socket_path, server.root_password
    server.state.globals["read_only"] = 1
    server.general_log                  # statements as the general log shows them: passwords rewritten
    server.stop()
"""

from vaultkeeper.testing.mysql.server import MysqlServer
from vaultkeeper.testing.mysql.state import State

__all__ = ["MysqlServer", "State"]
