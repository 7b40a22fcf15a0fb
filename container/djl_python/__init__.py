"""What a DJLServing handler imports: ``from djl_python import Input, Output, PairList``.

The names, signatures and wire behaviour are the union of DJLServing 0.27 and 0.36; the code is bloomery's own.
"""

from __future__ import annotations

from djl_python.inputs import Input
from djl_python.outputs import Output
from djl_python.pair_list import PairList

__version__ = "0.36.0"  # the newest DJLServing whose handlers run here

__all__ = ["Input", "Output", "PairList"]
