"""vaultkeeper rotates the passwords and tokens of a self-hosted stack without locking anyone out."""

__version__ = "0.1.0"
