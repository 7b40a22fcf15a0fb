"""Processes that read for a fetch: TLS hands out 16 KiB at a time, and one interpreter takes turns with itself."""
