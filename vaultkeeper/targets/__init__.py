"""Systems that check credentials, one file each. No module here imports another."""
