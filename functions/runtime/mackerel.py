"""The client of Mackerel's API with the key that is kept in SSM."""

from __future__ import annotations

from functools import lru_cache
from typing import Any

from aws_lambda_powertools.utilities.parameters import SSMProvider

from containermetrics.mackerel import Mackerel
from runtime import clients
from runtime.version import VERSION

# A key that was replaced is in use after so long at the latest.
_KEY_SECONDS = 300


def connect(url: str, parameter: str, **options: Any) -> Mackerel:
    """parameter: name of the SecureString with the API key, "" for none. options: of Mackerel.

    Raises GetParameterError (of Powertools) or InvalidKey when there is no key that can be used.
    """
    key = keys().get(parameter, decrypt=True, max_age=_KEY_SECONDS)
    return Mackerel(url, str(key), VERSION, **options)


@lru_cache(maxsize=1)
def keys() -> SSMProvider:
    """What reads keys, and keeps them."""
    return SSMProvider(boto3_client=clients.ssm_briefly())
