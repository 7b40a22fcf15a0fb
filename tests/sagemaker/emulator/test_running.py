"""Which generation and variant a request goes to; instances are stand-ins, since none is asked anything here."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

from tests.support.hosting import endpoint

from bloomery.sagemaker.emulator.containers.running import Endpoint, Generation


def generation(*, healthy: bool = True, **weights: float) -> Generation:
    made = Generation.of(endpoint(variants=weights))
    for variant in made.variants.values():
        instance: Any = SimpleNamespace(healthy=healthy, outstanding=0)
        variant.instances.append(instance)
    return made


def drawn(running: Endpoint, target: str | None = None) -> set[str]:
    """The variants that 60 requests go to."""
    found = (running.choose(target) for _ in range(60))
    return {variant.spec.name for variant in found if variant is not None}


def test_a_successor_gets_nothing_before_its_share() -> None:
    assert drawn(Endpoint(generation(old=1), successor=generation(new=1))) == {"old"}


def test_a_successor_gets_its_share_and_everything_in_the_end() -> None:
    running = Endpoint(generation(old=1), successor=generation(new=1), share=0.5)
    assert drawn(running) == {"old", "new"}
    running.share = 1.0
    assert drawn(running) == {"new"}


def test_the_other_generation_stands_in_for_one_that_cannot_answer() -> None:
    assert drawn(Endpoint(generation(old=1), successor=generation(healthy=False, new=1), share=1.0)) == {"old"}
    assert drawn(Endpoint(generation(healthy=False, old=1), successor=generation(new=1), share=0.01)) == {"new"}
    assert drawn(Endpoint(generation(healthy=False, old=1), successor=generation(new=1))) == set()


def test_a_target_is_found_in_either_generation_whatever_its_weight() -> None:
    running = Endpoint(generation(kept=1, gone=0), successor=generation(kept=1, added=0), share=0.5)
    assert drawn(running) == {"kept"}
    assert drawn(running, "gone") == {"gone"}
    assert drawn(running, "added") == {"added"}
    assert running.has("added")
    assert not running.has("absent")
