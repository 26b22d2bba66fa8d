"""What the server said, read into a status and its reason. Pure."""
