"""`python -m vaultkeeper` is the same command as `vaultkeeper`."""

from vaultkeeper.cli import main

main()
