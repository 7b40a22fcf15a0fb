"""What can be asked of a loaded model. ``answer(engine, inputs)`` is what a handler calls."""

from bloomery.tasks.text_generation import answer

__all__ = ["answer"]
