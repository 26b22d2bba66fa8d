"""The training process: from its settings to the last step."""
