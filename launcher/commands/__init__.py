"""The launcher's commands, a file for each family: parse, call, print."""
