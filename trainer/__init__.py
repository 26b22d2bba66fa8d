"""Learning: runs in the container, under one process or under MultiWorkerMirroredStrategy."""
