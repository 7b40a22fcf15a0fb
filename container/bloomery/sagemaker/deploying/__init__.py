"""A deployment is asked for, checked, made, watched and invoked. Functions over a ``Session``; nothing prints."""
