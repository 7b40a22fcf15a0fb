"""Answer shapes: typed events in, what a client reads out. Pure functions, one module per shape, no torch."""

from bloomery.formats.complete import complete_answer
from bloomery.formats.details import Row, gather
from bloomery.formats.errors import error_line, error_record
from bloomery.formats.steps import texts_per_step
from bloomery.formats.streams import stream_answer
from bloomery.formats.style import Asked, Compat, Shape, StreamForm, Style

__all__ = [
    "Asked",
    "Compat",
    "Row",
    "Shape",
    "StreamForm",
    "Style",
    "complete_answer",
    "error_line",
    "error_record",
    "gather",
    "stream_answer",
    "texts_per_step",
]
