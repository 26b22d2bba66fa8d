"""From a run directory to object storage, and back."""
