"""YAML policy files to `RotationPolicy`: merged, validated, with every error of every file told at its place.

`load` is the way in, `show` prints what it understood, `schema` exports the format for editors. Kinds are known only
through the registry that is handed in.
"""

from __future__ import annotations

from vaultkeeper.policyfile.load import DEFAULTS_FILE, load
from vaultkeeper.policyfile.schema import schema
from vaultkeeper.policyfile.settings import SettingsOf
from vaultkeeper.policyfile.show import show

__all__ = ["DEFAULTS_FILE", "SettingsOf", "load", "schema", "show"]
