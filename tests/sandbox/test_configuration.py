"""The words of HAProxy: weights in its map, servers in its configuration."""

from __future__ import annotations

from pathlib import Path

from hypothesis import given
from hypothesis import strategies as st

from sandbox.alb.configuration import (
    RANDOM_RANGE,
    Frontend,
    Group,
    Mode,
    Rule,
    Slot,
    Structure,
    Weights,
    encode_weights,
    render,
)

forwards = st.lists(st.integers(0, 999), max_size=5).map(
    lambda weights: tuple((f"group-{place}.0a", weight) for place, weight in enumerate(weights))
)


def chosen(encoded: str, random: int) -> str | None:
    """What the configuration does with a map entry: the first group whose bound is above."""
    fields = encoded.split("|")
    for bound, group in zip(fields[::2], fields[1::2], strict=False):
        if int(bound) > random:
            return group
    return None


def shares(encoded: str) -> dict[str, float]:
    """The share of the random numbers that each group gets, from its bounds."""
    fields = encoded.split("|")
    result = {}
    below = 0
    for bound, group in zip(fields[::2], fields[1::2], strict=False):
        result[group] = max(0, int(bound) - below) / RANDOM_RANGE
        below = max(below, int(bound))
    return result


@given(forwards)
def test_every_group_gets_its_share(weights: Weights) -> None:
    total = sum(weight for _, weight in weights)
    if not total:
        assert encode_weights(weights) == "-"
        return
    got = shares(encode_weights(weights))
    for group, weight in weights:
        assert abs(got[group] - weight / total) < 1e-9


@given(forwards, st.integers(0, RANDOM_RANGE - 1))
def test_every_request_goes_somewhere_but_never_to_weight_0(weights: Weights, random: int) -> None:
    group = chosen(encode_weights(weights), random)
    if any(weight for _, weight in weights):
        assert group is not None
        assert dict(weights)[group] > 0
    else:
        assert group is None


def test_no_group_at_all() -> None:
    assert encode_weights(()) == "-"


def test_every_server_has_the_address_of_its_slot_ready_or_not() -> None:
    structure = Structure(
        "127.0.1.200",
        (Frontend("listener-1", 8080, (Rule("1", ()),)),),
        (Group("web.0a"),),
    )
    slots = {
        ("web.0a", 0): Slot("127.0.1.1", 18081, Mode.READY),
        ("web.0a", 1): Slot("127.0.1.2", 18081, Mode.DRAIN),
        ("web.0a", 2): Slot("127.0.1.3", 18081, Mode.EMPTY),
    }
    text = render(structure, slots, Path("/s"), Path("/m"), dict.fromkeys(range(400, 505), Path()))
    backend = text.partition("backend web.0a\n")[2]
    servers = [line.strip() for line in backend.splitlines() if line.startswith("  server ")]
    assert servers[:4] == [
        "server s0 127.0.1.1:18081",
        "server s1 127.0.1.2:18081 disabled",
        "server s2 127.0.1.3:18081 disabled",
        "server s3 127.0.0.1:1 disabled",
    ]
