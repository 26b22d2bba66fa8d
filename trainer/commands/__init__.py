"""What each command of ``trainer`` does with its flags: parse, call, print."""
