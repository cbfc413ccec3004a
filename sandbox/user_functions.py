"""Functions that people create through the API: their own code, from moto's Lambda.

The code of a zip file is unpacked once for each version of it. What a function is (its handler, its
environment, its timeout) is read at each invocation, so a change is there with the next one.
"""

from __future__ import annotations

import io
import threading
import zipfile
from pathlib import Path
from typing import Any

from moto.awslambda.exceptions import UnknownFunctionException
from moto.awslambda_simple.models import lambda_simple_backends

from sandbox.lambda_function import Function
from sandbox.world import World


class UnsupportedFunctionError(Exception):
    """A function that the sandbox cannot run; the message says why."""


class UserFunctions:
    """What the API has besides the functions of the template."""

    def __init__(self, world: World) -> None:
        self._world = world
        self._unpacking = threading.Lock()

    def knows(self, name: str) -> bool:
        """Whether there is a function of this name."""
        try:
            self._known(name)
        except KeyError:
            return False
        return True

    def find(self, name: str) -> Function:
        """A function as it is now; raises KeyError and UnsupportedFunctionError."""
        known = self._known(name)
        if known.package_type != "Zip" or not str(known.run_time).startswith("python"):
            raise UnsupportedFunctionError(
                f"{name} is {known.package_type}, {known.run_time}: the sandbox runs Python only"
            )
        self._world.backend("logs").ensure_log_group(known.logs_group_name)
        return Function(
            logical_id=name,
            name=name,
            arn=str(known.function_arn),
            handler=str(known.handler),
            timeout=float(known.timeout),
            memory=int(known.memory_size),
            environment={key: str(value) for key, value in known.environment_vars.items()},
            log_group=str(known.logs_group_name),
            code=self._unpacked(known),
        )

    def _known(self, name: str) -> Any:
        """moto's function; raises KeyError."""
        backend = lambda_simple_backends[self._world.account_id][self._world.region]
        try:
            return backend.get_function(name)
        except UnknownFunctionException as error:
            raise KeyError(name) from error

    def _unpacked(self, known: Any) -> Path:
        folder: Path = self._world.work_directory / "user-functions" / str(known.code_digest)
        with self._unpacking:
            if not folder.exists():
                new = folder.with_suffix(".new")
                try:
                    with zipfile.ZipFile(io.BytesIO(known.code_bytes)) as archive:
                        archive.extractall(new)
                except zipfile.BadZipFile as error:
                    raise UnsupportedFunctionError(f"{known.function_name}: {error}") from error
                new.rename(folder)
        return folder
