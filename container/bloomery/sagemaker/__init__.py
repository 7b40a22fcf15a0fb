"""SageMaker: what deploys to it, and what stands in for it on this machine.

    from bloomery.sagemaker import Deployment, Endpoint, Session

What is named here is public. Each name is imported at its first use, so that ``import bloomery`` stays light.
"""

from typing import TYPE_CHECKING

from bloomery.exports import lazily

if TYPE_CHECKING:
    from bloomery.sagemaker.bucket import default_bucket as default_bucket
    from bloomery.sagemaker.bucket import ensure_bucket as ensure_bucket
    from bloomery.sagemaker.deploying.component import Component as Component
    from bloomery.sagemaker.deploying.deployment import AsyncOutput as AsyncOutput
    from bloomery.sagemaker.deploying.deployment import Deployment as Deployment
    from bloomery.sagemaker.deploying.endpoint import Endpoint as Endpoint
    from bloomery.sagemaker.deploying.events import Note as Note
    from bloomery.sagemaker.deploying.events import Progress as Progress
    from bloomery.sagemaker.deploying.generated import pieces as pieces
    from bloomery.sagemaker.deploying.launching import Patience as Patience
    from bloomery.sagemaker.deploying.ordering import Order as Order
    from bloomery.sagemaker.deploying.ordering import prepare as prepare
    from bloomery.sagemaker.deploying.telling import Teller as Teller
    from bloomery.sagemaker.operating import autoscaling as autoscaling
    from bloomery.sagemaker.operating import prefix as prefix
    from bloomery.sagemaker.operating.cost import Cost as Cost
    from bloomery.sagemaker.operating.cost import Throughput as Throughput
    from bloomery.sagemaker.operating.listing import listing as listing
    from bloomery.sagemaker.operating.logs import LogLine as LogLine
    from bloomery.sagemaker.operating.logs import Logs as Logs
    from bloomery.sagemaker.operating.prices import Prices as Prices
    from bloomery.sagemaker.operating.removal import remove as remove
    from bloomery.sagemaker.operating.scaling_requests import Bounds as Bounds
    from bloomery.sagemaker.operating.status import look as look
    from bloomery.sagemaker.operating.waiting import until_count as until_count
    from bloomery.sagemaker.packaging import package as package
    from bloomery.sagemaker.packaging import upload as upload
    from bloomery.sagemaker.planning import plan as plan
    from bloomery.sagemaker.session import Session as Session

_HOMES = {
    "bucket": ("default_bucket", "ensure_bucket"),
    "deploying.component": ("Component",),
    "deploying.deployment": ("AsyncOutput", "Deployment"),
    "deploying.endpoint": ("Endpoint",),
    "deploying.events": ("Note", "Progress"),
    "deploying.generated": ("pieces",),
    "deploying.launching": ("Patience",),
    "deploying.ordering": ("Order", "prepare"),
    "deploying.telling": ("Teller",),
    "operating": ("autoscaling", "prefix"),
    "operating.cost": ("Cost", "Throughput"),
    "operating.listing": ("listing",),
    "operating.logs": ("LogLine", "Logs"),
    "operating.prices": ("Prices",),
    "operating.removal": ("remove",),
    "operating.scaling_requests": ("Bounds",),
    "operating.status": ("look",),
    "operating.waiting": ("until_count",),
    "packaging": ("package", "upload"),
    "planning": ("plan",),
    "session": ("Session",),
}
__all__ = sorted(name for names in _HOMES.values() for name in names)
__getattr__ = lazily(__name__, _HOMES)
