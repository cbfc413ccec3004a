"""Which launch type or capacity providers a service gets, as ECS decides it."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import pytest
from moto.ecs.exceptions import InvalidParameterException

from sandbox.ecs.providers import choose


def cluster(*providers: str, default: str | None = None) -> Any:
    strategy = [{"capacityProvider": default, "weight": 1}] if default else []
    return SimpleNamespace(
        capacity_providers=list(providers), default_capacity_provider_strategy=strategy
    )


def strategy(name: str) -> list[dict[str, Any]]:
    return [{"capacityProvider": name, "weight": 1}]


def names(chosen: dict[str, Any]) -> list[str]:
    return [one["capacityProvider"] for one in chosen["capacityProviderStrategy"]]


def test_a_service_with_neither_gets_the_default_strategy_of_its_cluster() -> None:
    chosen = choose(cluster("cp", default="cp"), {})
    assert chosen["capacityProviderStrategy"] == [
        {"capacityProvider": "cp", "weight": 1, "base": 0}
    ]


def test_a_launch_type_keeps_it_from_the_default_strategy() -> None:
    chosen = choose(cluster("cp", default="cp"), {"launchType": "EC2"})
    assert (chosen["launchType"], names(chosen)) == ("EC2", [])


def test_without_a_default_strategy_it_runs_on_ec2() -> None:
    chosen = choose(cluster("cp"), {})
    assert (chosen["launchType"], names(chosen)) == ("EC2", [])


def test_its_own_strategy_goes_before_the_default_one() -> None:
    given = {"capacityProviderStrategy": strategy("own")}
    assert names(choose(cluster("cp", "own", default="cp"), given)) == ["own"]


def test_an_empty_strategy_goes_back_to_the_launch_type() -> None:
    assert names(choose(cluster("cp", default="cp"), {"capacityProviderStrategy": []})) == []


def test_both_are_refused() -> None:
    given = {"launchType": "EC2", "capacityProviderStrategy": strategy("cp")}
    with pytest.raises(InvalidParameterException, match="both a launch type and capacity provider"):
        choose(cluster("cp"), given)


def test_a_provider_has_to_be_associated_with_the_cluster() -> None:
    with pytest.raises(InvalidParameterException, match="not associated with the cluster"):
        choose(cluster("cp"), {"capacityProviderStrategy": strategy("other")})
