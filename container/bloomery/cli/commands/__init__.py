"""One module for each command: what it takes, and which function does it."""
