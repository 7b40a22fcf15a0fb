"""What SageMaker says, and where we know it from. Every sentence that claims to be AWS's stands here, once.

No account was at hand when this was written. ``DOCUMENTED`` is in AWS's documentation or botocore's model, ``SEEN`` in
a public report of somebody who got it from AWS, ``EXPERIENCE`` remembered and to be corrected by whoever has an
account, ``OURS`` said by this emulator alone: SageMaker would do something that cannot be done, or is not done, here.
"""

from __future__ import annotations

from dataclasses import dataclass
from enum import Enum


class Source(Enum):
    """How far a sentence, or a rule, can be trusted."""

    DOCUMENTED = "documented"
    SEEN = "seen in a public report"
    EXPERIENCE = "from experience"
    OURS = "this emulator's own"


DOCUMENTED, SEEN, EXPERIENCE, OURS = Source


@dataclass(frozen=True)
class Words:
    """A message with places to fill in."""

    template: str
    source: Source

    def __call__(self, **values: object) -> str:
        return self.template.format(**values)


# --- models, configurations, endpoints
EXISTS = Words('Cannot create already existing {kind} "{arn}".', SEEN)
NOT_FOUND = Words('Could not find {kind} "{arn}".', SEEN)
NO_SUCH_ARN = Words("The resource {arn} does not exist.", EXPERIENCE)
NO_MODEL_DATA = Words("Could not find model data at {uri}.", SEEN)
BUSY = Words('Cannot update in-progress endpoint "{arn}".', EXPERIENCE)
BAD_TOKEN = Words("Invalid NextToken.", EXPERIENCE)
TOO_MANY_TAGS = Words("The number of tags exceeds the limit of 50 for {arn}.", EXPERIENCE)

# --- validation of one field; Coral's sentences, which all of AWS's Java services share
DETECTED = Words("{count} validation error{s} detected: {details}", SEEN)
VIOLATION = Words("Value {value} at '{path}' failed to satisfy constraint: {constraint}", SEEN)
NOT_NULL = Words("Member must not be null", DOCUMENTED)
IN_ENUM = Words("Member must satisfy enum value set: [{values}]", SEEN)
MATCHES = Words("Member must satisfy regular expression pattern: {pattern}", SEEN)
LONG_ENOUGH = Words("Member must have length greater than or equal to {limit}", SEEN)
SHORT_ENOUGH = Words("Member must have length less than or equal to {limit}", SEEN)
LARGE_ENOUGH = Words("Member must have value greater than or equal to {limit}", SEEN)
SMALL_ENOUGH = Words("Member must have value less than or equal to {limit}", SEEN)
MAP_KEYS = Words("Map keys must satisfy constraint: [{constraints}]", SEEN)
MAP_VALUES = Words("Map value must satisfy constraint: [{constraints}]", SEEN)
WRONG_TYPE = Words("{found} at '{path}' can not be converted to {expected}", EXPERIENCE)
NOT_JSON = Words("Could not parse the request body into JSON: {reason}", EXPERIENCE)
UNKNOWN_MEMBER = Words(
    "Unknown member '{name}' at '{path}'; SageMaker ignores it, and that is seldom meant. Known: {known}", OURS
)
UNKNOWN_OPERATION = Words("The operation {operation} is not part of this emulator, which does hosting: {known}.", OURS)

# --- FailureReason of an endpoint
PING_FAILED = Words(
    "The primary container for production variant {variant} did not pass the ping health check. Please check "
    "CloudWatch logs for this endpoint.",
    SEEN,
)
INTERNAL = Words("Request to service failed. If failure persists after retry, contact customer support.", SEEN)
