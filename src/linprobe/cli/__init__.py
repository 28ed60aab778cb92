"""The command line: one module a command, which imports what it runs only when it runs."""
