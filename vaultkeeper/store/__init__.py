"""Durable state: the journal, versions, labels, login charges and the audit log. It never sees a key or a value.

`opening.open_store` and `opening.create_store` are the ways in.
"""
