"""The command line: one thin module for each command, imported only when it is called."""
