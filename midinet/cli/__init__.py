"""The command line: one module a verb, and no logic of its own beyond showing."""
