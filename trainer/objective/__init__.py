"""What training works towards: losses, metrics, optimizers, schedules."""
