"""What runs in a pod beside the trainer."""
