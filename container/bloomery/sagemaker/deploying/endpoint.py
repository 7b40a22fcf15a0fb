"""``Endpoint``: what Python code has in its hand."""

from __future__ import annotations

from types import TracebackType
from typing import Any, Self

from bloomery.errors import SageMakerError
from bloomery.sagemaker.deploying import invoking
from bloomery.sagemaker.deploying.asynchronous import AsyncInvocation
from bloomery.sagemaker.deploying.deployment import Deployment
from bloomery.sagemaker.deploying.events import Tell
from bloomery.sagemaker.deploying.invoking import Answer, Options, Stream
from bloomery.sagemaker.deploying.ordering import Order, carry_out, prepare
from bloomery.sagemaker.deploying.watching import watch
from bloomery.sagemaker.operating.absence import ask
from bloomery.sagemaker.operating.removal import Removal, remove
from bloomery.sagemaker.session import Session


class Endpoint:
    """An endpoint that is there, or was just asked for::

        with Endpoint.deploy(Deployment("demo", ("ml.g5.xlarge",), "code/"), session) as endpoint:
            print(endpoint.invoke("To be, or not").value)

    As a context manager it deletes what it stands for, model and configuration included, in the end.
    """

    def __init__(self, name: str, session: Session | None = None) -> None:
        """``session`` None: ``Session.open()``; it is then closed with the endpoint."""
        self.name = name
        self._own = session is None
        self.session = session or Session.open()

    @classmethod
    def deploy(
        cls,
        wanted: Deployment,
        session: Session,
        *,
        tell: Tell = lambda _: None,
        order: Order | None = None,
    ) -> Self:
        """Check, make and await what is ``wanted``. What happens is told to ``tell`` as it does.

        Raises DeploymentRefusedError before anything is made, EndpointFailedError, and SageMakerError.
        """
        carry_out(session, prepare(session, wanted), tell, order or Order())
        return cls(wanted.name, session)

    def status(self) -> str:
        """InService, Creating, Failed, …. Raises SageMakerError when there is no such endpoint."""
        found = ask(self.session, "sagemaker", "DescribeEndpoint", EndpointName=self.name)
        if found is None:
            raise SageMakerError(f"there is no endpoint {self.name!r} in {self.session.region}")
        return str(found["EndpointStatus"])

    def wait(self, tell: Tell = lambda _: None) -> Self:
        """Return when it is InService. Raises EndpointFailedError with the reason and the log's end."""
        for event in watch(self.session, self.name):
            tell(event)
        return self

    def invoke(self, value: Any, **options: str) -> Answer:
        """Its answer to ``value``: a prompt, something that becomes JSON, bytes, or the Path of a file.

        ``options``: ``content_type``, ``accept``, ``target_variant``, ``inference_component``, ``custom_attributes``,
        ``session_id``. Raises InvocationError.
        """
        return invoking.invoke(self.session, self.name, value, Options(**options))

    def stream(self, value: Any, **options: str) -> Stream:
        """As ``invoke``; text as it comes, or ``.chunks()`` of bytes. Raises InvocationError, also in the middle."""
        return invoking.stream(self.session, self.name, value, Options(**options))

    def invoke_async(
        self,
        value: Any = None,
        *,
        input_location: str | None = None,
        request_ttl: int | None = None,
        invocation_timeout: int | None = None,
        **options: str,
    ) -> AsyncInvocation:
        """Of an asynchronous endpoint: ``.result(timeout)`` is its answer to ``value``, or to what lies at
        ``input_location`` (s3://…)."""
        return invoking.invoke_async(
            self.session,
            self.name,
            value,
            Options(**options),
            input_location=input_location,
            request_ttl=request_ttl,
            invocation_timeout=invocation_timeout,
        )

    def delete(self) -> Removal:
        """Remove it, its configuration and its model, unless another endpoint uses them. Raises SageMakerError."""
        return remove(self.session, self.name)

    def close(self) -> None:
        """Close the session, if it is this object's own. The endpoint stays."""
        if self._own:
            self.session.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        try:
            self.delete()
        finally:
            self.close()
