"""HTTP over sockets of our own: ranges straight into the caller's memory, and every way to break told apart."""
