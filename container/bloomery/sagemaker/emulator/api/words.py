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

# Updates of an endpoint.
IN_PROGRESS = Words('Cannot update in-progress endpoint "{arn}".', "reported")
ONLY_DELETE = Words('Endpoint "{arn}" has failed. DeleteEndpoint is the only operation that it allows.', "guessed")
MIXED = Words(
    'Endpoint "{arn}" serves a mix of two configurations (UpdateRollbackFailed): use UpdateEndpoint first.', "guessed"
)
NO_SUCH_VARIANTS = Words(
    'The variant name(s) "{names}" is/are not present within endpoint configuration "{config}".', "reported"
)
NO_INSTANCES_LEFT = Words(
    "Production variant {variant}: DesiredInstanceCount 0 is for asynchronous endpoints and inference components.",
    "guessed",
)
NO_WEIGHT_LEFT = Words("The sum of the variants' weights must be greater than 0.", "guessed")
NOTHING_RETAINED = Words(
    "ExcludeRetainedVariantProperties can only be specified when RetainAllVariantProperties is true.", "guessed"
)
TWO_POLICIES = Words("Only one update policy should be used in the deployment configuration.", "documented")
SIZE_OF_TYPE = Words("{member} goes with the traffic routing type {kind}, and only with it.", "guessed")
SIZE_LIMITS = Words(
    "{path} of {size} is not between {least}% and {most}% of the {count} instance(s) of production variant {variant}.",
    "guessed",
)
ALARM = Words("One or more alarms of the AutoRollbackConfiguration are in the ALARM state: {names}.", "guessed")
NO_ALARMS = Words("The alarms {names} of the AutoRollbackConfiguration cannot be described: {reason}.", "guessed")
UPDATE_TIME = Words("The update took longer than its MaximumExecutionTimeoutInSeconds ({seconds:g}).", "guessed")
ROLLBACK_FAILED = Words("{cause} The rollback failed, too: {reason}", "guessed")

# Application Auto Scaling.
OTHER_NAMESPACE = Words("This emulator scales sagemaker alone, not {namespace}.", "ours")
NO_DIMENSION = Words("This emulator scales {known}, not {dimension}.", "ours")
NO_RESOURCE_ID = Words("Unsupported resource {resource} for the scalable dimension {dimension}.", "guessed")
NOTHING_TO_SCALE = Words("The resource {resource} does not exist.", "guessed")
NO_CAPACITY_LIMITS = Words("MinCapacity and MaxCapacity are required for a new scalable target.", "guessed")
CAPACITY_LIMITS_CROSSED = Words("Maximum capacity cannot be less than minimum capacity.", "guessed")
NOT_TO_ZERO = Words(
    "MinCapacity of {resource} must be at least 1: only asynchronous endpoints and inference components scale to zero.",
    "guessed",
)
NO_TARGET = Words(
    "No scalable target registered for service namespace: sagemaker, resource ID: {resource}, scalable dimension: "
    "{dimension}",
    "reported",
)
NO_POLICY = Words("No scaling policy found with name {name}.", "guessed")
NO_POLICY_TYPE = Words("This emulator has no {kind} policies: TargetTrackingScaling or StepScaling.", "ours")
NO_POLICY_CONFIG = Words("A {kind} policy needs a {member}.", "guessed")
NO_STEPS = Words("A step scaling policy needs StepAdjustments.", "guessed")
ONE_METRIC = Words(
    "A target tracking policy has either a PredefinedMetricSpecification or a CustomizedMetricSpecification.", "guessed"
)
TARGET_VALUE = Words("TargetValue must be greater than 0, not {value}.", "guessed")
METRIC_MATH = Words(
    "This emulator tracks one metric: a CustomizedMetricSpecification with MetricName, Namespace and Statistic.", "ours"
)
NO_METRIC = Words("{metric} is no metric of {dimension}: {known}.", "guessed")

# Service Quotas and prices.
NO_QUOTA = Words("The request failed because the specified quota {code} does not exist.", "guessed")
NO_QUOTAS_OF = Words("This emulator knows the quotas of sagemaker's endpoints, not of {service}.", "ours")
NO_PRICES_OF = Words("This emulator knows prices of AmazonSageMaker's hosting, not of {service}.", "ours")

# Limits and capacity.
THROTTLED = Words("Rate exceeded", "reported")
LIMIT_OF_OPERATION = Words("The account-level service limit of {operation} is exceeded.", "guessed")
LIMIT_OF_INSTANCES = Words(
    "The account-level service limit '{type} for endpoint usage' is {limit} Instances, with current utilization of "
    "{used} Instances and a request delta of {delta} Instances. Please use AWS Service Quotas to request an increase "
    "for this quota. If AWS Service Quotas is not available, contact AWS support to request an increase for this "
    "quota.",
    "reported",
)
NO_INSTANCES = Words(
    "Unable to provision requested ML compute capacity due to InsufficientInstanceCapacity error. Please retry using "
    "a different ML instance type or after some time.",
    "reported",
)
INJECTED = Words("an error that a fault rule of the emulator asks for", "ours")

# Inference components.
NO_COMPONENTS_HERE = Words(
    "Inference Components are not supported in this Endpoint. Please make sure this endpoint can deploy inference "
    "components.",
    "reported",
)
ENDPOINT_NOT_READY = Words(
    'Endpoint "{arn}" is {status}; inference components are created on, and changed on, one that is InService.',
    "guessed",
)
NO_SUCH_VARIANT = Words('Endpoint "{arn}" has no production variant {variant}.', "guessed")
COMPONENT_BUSY = Words('Cannot update in-progress inference component "{arn}".', "guessed")
COMPONENT_FAILED = Words('Inference component "{arn}" has failed: delete it, and create it again.', "guessed")
WRONG_INSTANCE_TYPE = Words(
    "None of the Specifications is for {type}, the instance type of production variant {variant}.", "guessed"
)
TOO_LARGE = Words(
    "One copy of the inference component needs more than an instance of type {type} has: {lacking}.", "guessed"
)
NO_ROOM = Words(
    "There is not enough hardware resources on the instances for this endpoint to create a copy of the inference "
    "component. Update resource requirements for this inference component, remove existing inference components, or "
    "increase the number of instances for this endpoint.",
    "guessed",
)
HAS_COMPONENTS = Words(
    'Cannot delete endpoint "{arn}": it hosts inference components. Delete them first: {names}.', "guessed"
)
COMPONENT_NOT_HEALTHY = Words(
    "The container of the inference component did not pass the ping health check. Please check CloudWatch logs for "
    "this inference component.",
    "guessed",
)
COMPONENT_MISSING = Words(
    "Inference Component Name header is required for endpoints to which you plan to deploy inference components. "
    "Please include Inference Component Name header or consider using SageMaker models.",
    "reported",
)
COMPONENT_UNWANTED = Words(
    "Endpoint {endpoint} of account {account} has no inference components: leave InferenceComponentName out.",
    "guessed",
)
NO_COMPONENT = Words(
    "Inference Component {component} of endpoint {endpoint} of account {account} not found.", "guessed"
)
NO_CAPACITY = Words(
    "Inference Component has no capacity to process this request. ApplicationAutoScaling may be in-progress (if "
    "configured) or try to increase the capacity by invoking UpdateInferenceComponentRuntimeConfig API.",
    "reported",
)

OTHER_KIND = Words(
    'Endpoint "{arn}" cannot change between models of its own and inference components: create another.', "guessed"
)

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

# FailureReason of an endpoint.
INTERNAL = Words("Request to service failed. If failure persists after retry, contact customer support.", "reported")
NOT_HEALTHY = Words(
    "The primary container for production variant {variant} did not pass the ping health check. Please check "
    "CloudWatch logs for this endpoint.",
    "reported",
)
CANNOT_START = Words(
    "CannotStartContainerError. Please ensure the model container for variant {variant} starts correctly when invoked "
    "with 'docker run <image> serve'.",
    "reported",
)
NO_PROGRAM = Words(
    "The image '{image}' cannot be run here: {reason}. Start the emulator with --image REGEX=COMMAND for a local "
    "program in its place, or with a docker daemon at hand.",
    "ours",
)
NO_DOWNLOAD = Words(
    'Failed to download model data for container "container_1" from URL: "{uri}". Please ensure that there is an '
    "object located at the URL and that the role passed to CreateModel has permissions to download the object.{detail}",
    "reported",
)
NO_EXTRACTION = Words(
    'Failed to extract model data archive for container "container_1" from URL "{uri}". Please ensure that the object '
    "located at the URL is a valid tar.gz archive.{detail}",
    "reported",
)
DOWNLOAD_TIME = Words(
    'Model data for container "container_1" from URL "{uri}" was not downloaded and extracted within {seconds:g} '
    "seconds (ModelDataDownloadTimeoutInSeconds).",
    "guessed",
)
BAD_KEY = Words(
    'Failed to download model data for container "container_1" from URL: "{uri}": the key "{key}" cannot become a '
    "file below /opt/ml/model: {reason}.",
    "guessed",
)

# Errors of the runtime.
NOT_FOUND = Words("Endpoint {endpoint} of account {account} not found.", "reported")
NO_VARIANT = Words("Variant {variant} of endpoint {endpoint} of account {account} not found.", "guessed")
NO_SESSION = Words(
    "Session {session} of endpoint {endpoint} of account {account} not found: it was never opened, has been closed, "
    "has expired, or its instance is gone.",
    "guessed",
)
NO_INSTANCE = Words("Endpoint {endpoint} of account {account} has no instance that is in service now.", "guessed")
MODEL_FAILED = Words(
    'Received {side} error ({status}) from primary with message "{message}". See '
    "https://{region}.console.aws.amazon.com/cloudwatch/home?region={region}#logEventViewer:group="
    "{group} in account {account} for more information.",
    "reported",
)
BODY_BROKE = Words(
    "Received server error ({status}) from primary and could not load the entire response body. See "
    "https://{region}.console.aws.amazon.com/cloudwatch/home?region={region}#logEventViewer:group="
    "{group} in account {account} for more information.",
    "reported",
)
TOO_SLOW = Words(
    "Your invocation timed out while waiting for a response from container primary. Review the latency metrics for "
    "each container in Amazon CloudWatch, resolve the issue, and try again.",
    "reported",
)
CONNECTION_LOST = Words("The connection to container primary broke before it answered: {reason}", "guessed")
STREAM_BROKEN = Words("The connection to container primary was reset or closed: {reason}", "guessed")
STREAM_TIME = Words("The model did not finish its response within {seconds:g} seconds.", "guessed")
STREAM_FAILED = Words(
    "The stream processing failed because of an unknown error, exception or failure. Try your request again.",
    "documented",
)
ONLY_ASYNCHRONOUS = Words(
    "Endpoint {endpoint} of account {account} is asynchronous: use InvokeEndpointAsync.", "guessed"
)
NOT_ASYNCHRONOUS = Words(
    "Endpoint {endpoint} of account {account} has no AsyncInferenceConfig: use InvokeEndpoint.", "guessed"
)
BODY_OR_LOCATION = Words("Body and InputLocation are mutually exclusive. Provide exactly one of them.", "documented")
NO_OUTPUT = Words(
    "Endpoint {endpoint} of account {account} has no S3OutputPath in its AsyncInferenceConfig, and this needs one.",
    "ours",
)
EXPIRED = Words("The request waited longer than its RequestTTLSeconds ({seconds:g}).", "guessed")
NO_INPUT = Words("Failed to read the input {uri}: {reason}", "guessed")
BODY_TOO_LONG = Words(
    "1 validation error detected: Value at 'body' failed to satisfy constraint: Member must have length less than or "
    "equal to {limit}",
    "reported",
)
