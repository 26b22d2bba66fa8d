"""From a destination back to this disk."""
