"""Frozen types and pure rules: no input or output, no clock, no randomness."""
