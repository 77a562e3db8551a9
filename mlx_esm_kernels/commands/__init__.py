"""The command line: one file a command, the flags they share, errors as sentences."""
