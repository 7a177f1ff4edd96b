"""Places that consumers read, one file each. No module here imports another."""
