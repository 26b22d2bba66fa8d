"""The kinds of object storage."""
