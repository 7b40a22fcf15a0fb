"""Endpoints that there are: list, watch, scale, pay and remove them. Functions over a ``Session``; nothing prints."""
