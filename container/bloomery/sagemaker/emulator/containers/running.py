"""What runs of an endpoint, and which instance a request goes to.

While an endpoint is updated it has two generations: the one that serves, and its successor, which gets a growing share
of the requests.
"""

from __future__ import annotations

import random
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path

from bloomery.sagemaker.emulator.containers.instance import Instance
from bloomery.sagemaker.emulator.deployment import EndpointSpec, Routing, VariantSpec


@dataclass
class Variant:
    """A variant with its instances."""

    spec: VariantSpec
    model_dir: Path | None = None  # once its data is there
    instances: list[Instance] = field(default_factory=list)

    @property
    def healthy(self) -> list[Instance]:
        """Those that take requests."""
        return [instance for instance in self.instances if instance.healthy]

    def choose(self) -> Instance | None:
        """A healthy instance, by the variant's routing strategy; None when there is none."""
        able = self.healthy
        if not able:
            return None
        if self.spec.routing is Routing.LEAST_OUTSTANDING_REQUESTS:
            fewest = min(instance.outstanding for instance in able)
            able = [instance for instance in able if instance.outstanding == fewest]
        return random.choice(able)


@dataclass
class Generation:
    """The instances of one configuration of an endpoint."""

    spec: EndpointSpec
    variants: dict[str, Variant]

    @classmethod
    def of(cls, spec: EndpointSpec) -> Generation:
        """One that has no instances yet."""
        return cls(spec, {variant.name: Variant(variant) for variant in spec.variants})

    @property
    def instances(self) -> list[Instance]:
        """All of them."""
        return [instance for variant in self.variants.values() for instance in variant.instances]

    def choose(self, target: str | None) -> Variant | None:
        """The variant called ``target``, or one by weight, of those that can answer; None when none can."""
        able = [variant for name, variant in self.variants.items() if variant.healthy and target in (None, name)]
        if target is not None:
            return able[0] if able else None
        weights = [variant.spec.weight for variant in able]
        return random.choices(able, weights)[0] if sum(weights) else None


@dataclass
class Endpoint:
    """One that runs, or is about to. ``serving`` from its first being in service on."""

    current: Generation
    serving: bool = False
    successor: Generation | None = None
    share: float = 0.0  # of the requests, that goes to the successor
    leaving: set[Instance] = field(default_factory=set)  # finish what they have, and end

    @property
    def spec(self) -> EndpointSpec:
        """Of the generation that serves."""
        return self.current.spec

    @property
    def variants(self) -> dict[str, Variant]:
        """Of the generation that serves."""
        return self.current.variants

    @property
    def instances(self) -> list[Instance]:
        """Whatever may be running."""
        generations = [self.current, self.successor] if self.successor else [self.current]
        return [*(instance for each in generations for instance in each.instances), *self.leaving]

    def draw(self) -> list[Generation]:
        """The generations that one request may go to, the one drawn for it first.

        The other stands in when the first cannot answer: an update must not cost a request.
        """
        if self.successor is None or self.share <= 0:
            return [self.current]
        both = [self.successor, self.current]
        return both if random.random() < self.share else both[::-1]

    def choose(self, target: str | None = None) -> Variant | None:
        """A variant for one request: the one that it names, or one by weight; None when none can answer."""
        able = (generation.choose(target) for generation in self.draw())
        return next((variant for variant in able if variant is not None), None)

    def has(self, target: str) -> bool:
        """Whether there is a variant of that name, healthy or not."""
        return any(target in generation.variants for generation in self.draw())

    def able(self) -> Iterator[list[tuple[Variant, Instance]]]:
        """The healthy instances, a list for each generation in the order of ``draw``."""
        for generation in self.draw():
            yield [(variant, instance) for variant in generation.variants.values() for instance in variant.healthy]
