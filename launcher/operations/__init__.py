"""What can be done with a job on a cluster."""
