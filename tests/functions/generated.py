"""What is generated for the handlers that take what others send: people, and EventBridge.

All of it runs through the real handlers: 12,300 inputs and events, at least the 10,000 of issue 6.
"""

from __future__ import annotations

import copy
from collections.abc import Callable, Mapping
from typing import Any, Literal

from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

Kind = Literal["anything", "mutated"]

# Handler → how many there are of each kind. What is no more than JSON is refused before anything in
# the account is looked at; what was mutated gets further.
INPUTS: Mapping[str, Mapping[Kind, int]] = {
    "plan_deployment": {"anything": 600, "mutated": 1400},
    "plan_roll_back": {"anything": 600, "mutated": 1400},
    "promote": {"anything": 600, "mutated": 1400},
    "plan_release": {"anything": 600, "mutated": 1400},
}
EVENTS: Mapping[str, Mapping[Kind, int]] = {
    "start_deployment": {"anything": 1500, "mutated": 1200},
    "recover_deployment": {"anything": 600, "mutated": 1000},
}
WANTED = 10_000

# Surrogates too: JSON can say them, as "\ud800", though no text of UTF-8 can.
TEXT = st.text(alphabet=st.characters(exclude_categories=()), max_size=40)
VALUES = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False) | TEXT,
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(TEXT, inner, max_size=4),
    max_leaves=8,
)
_MUTATIONS = ("drop", "replace", "add", "wrap")


@st.composite
def mutated(draw: st.DrawFn, valid: list[dict[str, Any]]) -> Any:
    """A valid document with up to three things done to it."""
    document: Any = copy.deepcopy(draw(st.sampled_from(valid)))
    for _ in range(draw(st.integers(1, 3))):
        places = list(_places(document))
        if not places:
            break
        holder, key = draw(st.sampled_from(places))
        match draw(st.sampled_from(_MUTATIONS)):
            case "drop":
                del holder[key]
            case "replace":
                holder[key] = draw(VALUES)
            case "add" if isinstance(holder, dict):
                holder[draw(TEXT)] = draw(VALUES)
            case _:
                holder[key] = [holder[key]]
    return document


def documents(kind: Kind, valid: list[dict[str, Any]]) -> st.SearchStrategy[Any]:
    """Any JSON, or what was valid before it was mutated."""
    return VALUES if kind == "anything" else mutated(valid)


def for_each(number: int, strategy: st.SearchStrategy[Any], check: Callable[[Any], None]) -> None:
    """Check so many of them. That there are fewer different ones is a failure."""
    checked = 0

    @settings(max_examples=number, suppress_health_check=list(HealthCheck))
    @given(strategy)
    def one(document: Any) -> None:
        nonlocal checked
        checked += 1
        check(document)

    one()
    assert checked >= number


def _places(document: Any) -> Any:
    """Every holder and key in it."""
    if isinstance(document, dict | list):
        keys = list(document) if isinstance(document, dict) else range(len(document))
        for key in keys:
            yield document, key
            yield from _places(document[key])
