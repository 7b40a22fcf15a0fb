"""Checkpoints written anew: split for ranks, in another precision, as safetensors."""
