"""Names that bloomery's server and bloomery's own workers share, and that a foreign peer ignores.

Private properties travel in request frames. The server strips any client header with the prefix; the worker loop
takes them out before a handler sees the request, save EVENTS.
"""

from __future__ import annotations

PREFIX = "x-bloomery-"
REQUEST_ID = PREFIX + "request-id"  # what cancel names
SEED = PREFIX + "seed"  # one number for all ranks: sampling must not diverge between them
PARAM = PREFIX + "param"  # of a refusal: the field of the request that is to blame
REASON_CODE = PREFIX + "reason-code"  # of a refusal: a word for programs
EVENTS = PREFIX + "events"  # "1": stream typed events (protocol.events) instead of a formatted answer

# Announces the control socket's path to a rank. Its presence also says: the peer is ours, so ranks above 0 send
# their status line but no body.
CONTROL_SOCKET = "BLOOMERY_CONTROL_SOCKET"

# Tells a rank the name under which clients know its model.
MODEL_NAME = "BLOOMERY_MODEL_NAME"
