"""From a run on disk to its destination."""
