"""Measures what bloomery promises: engines against each other in one interleaved run, and the server's own cost."""
