"""Data that is read by position from a folder or a bucket, and the command that writes it."""
