"""What MariaDB does otherwise than MySQL: a list of methods per account. Sessions and people are in `access/mysql`."""
