"""The parent process of training: starts it, watches it, and agrees with the other workers what comes next."""
