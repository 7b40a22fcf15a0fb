"""A deployment is asked for, checked, made, watched and invoked. Over a ``Session``; only ``Teller`` prints.

``Endpoint.deploy(Deployment(...), session)`` makes one; ``Endpoint(name)`` is one that is there.
"""

from bloomery.sagemaker.deploying.component import Component
from bloomery.sagemaker.deploying.deployment import AsyncOutput, Deployment
from bloomery.sagemaker.deploying.endpoint import Endpoint
from bloomery.sagemaker.deploying.ordering import Order

__all__ = ["AsyncOutput", "Component", "Deployment", "Endpoint", "Order"]
