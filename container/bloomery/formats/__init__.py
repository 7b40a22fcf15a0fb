"""Answer shapes: typed events in, what a client reads out. Pure functions, one module per shape, no torch."""

from bloomery.formats.errors import error_line, error_record
from bloomery.formats.jsonlines import steps_as_jsonlines, texts_per_step
from bloomery.formats.plain import generated_texts

__all__ = ["error_line", "error_record", "generated_texts", "steps_as_jsonlines", "texts_per_step"]
