"""What SageMaker says, word for word where we know it. Every text tells where it is from.

``documented``: in AWS's documentation or service model. ``reported``: quoted in public reports of users. ``guessed``:
SageMaker says something here, and we do not know what; these are the first to correct with an account at hand.
``ours``: this emulator refuses what SageMaker would do.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

Origin = Literal["documented", "reported", "guessed", "ours"]


@dataclass(frozen=True)
class Words:
    """A text with {places} to fill."""

    text: str
    origin: Origin

    def format(self, **values: object) -> str:
        return self.text.format(**values)


# Models, configurations, endpoints.
EXISTS = Words('Cannot create already existing {kind} "{arn}".', "reported")
NO_RESOURCE = Words('Could not find {kind} "{arn}".', "reported")
NO_SUCH_ARN = Words("The resource {arn} does not exist.", "guessed")
NO_MODEL_DATA = Words("Could not find model data at {uri}.", "reported")
BAD_TOKEN = Words("Invalid NextToken.", "guessed")
TOO_MANY_TAGS = Words("The number of tags exceeds the limit of 50 for {arn}.", "guessed")

# Validation of one field: the sentences that all of AWS's Java services share.
DETECTED = Words("{count} validation error{s} detected: {details}", "reported")
VIOLATION = Words("Value {value} at '{path}' failed to satisfy constraint: {constraint}", "reported")
NOT_NULL = Words("Member must not be null", "documented")
IN_ENUM = Words("Member must satisfy enum value set: [{values}]", "reported")
MATCHES = Words("Member must satisfy regular expression pattern: {pattern}", "reported")
LONG_ENOUGH = Words("Member must have length greater than or equal to {limit}", "reported")
SHORT_ENOUGH = Words("Member must have length less than or equal to {limit}", "reported")
LARGE_ENOUGH = Words("Member must have value greater than or equal to {limit}", "reported")
SMALL_ENOUGH = Words("Member must have value less than or equal to {limit}", "reported")
MAP_KEYS = Words("Map keys must satisfy constraint: [{constraints}]", "reported")
MAP_VALUES = Words("Map value must satisfy constraint: [{constraints}]", "reported")
WRONG_TYPE = Words("{found} at '{path}' can not be converted to {expected}", "guessed")
NOT_JSON = Words("Could not parse the request body into JSON: {reason}", "guessed")
UNKNOWN_MEMBER = Words(
    "Unknown member '{name}' at '{path}'; SageMaker ignores it, and that is seldom meant. Known: {known}", "ours"
)
UNKNOWN_OPERATION = Words("{operation} is not part of this emulator, which does hosting: {known}.", "ours")

# FailureReason of an endpoint, when the emulator itself fails.
INTERNAL = Words("Request to service failed. If failure persists after retry, contact customer support.", "reported")
