"""Models: their queues, their groups, and the registry that finds them by name."""
