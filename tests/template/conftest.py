from __future__ import annotations

import pytest

from sandbox.stack import load
from tests.template.model import TEMPLATE, Template


@pytest.fixture(scope="session")
def template() -> Template:
    return Template(load(TEMPLATE))
