"""What the server said of a job, read into a status and its reason. Pure."""
