"""``python -m sandbox``: run the sandbox, push an image to it, turn a fault on."""

from __future__ import annotations

import argparse
import json
import sys
import threading
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import requests
import yaml

from sandbox.settings import (
    BALANCERS,
    BUILD_DIRECTORY,
    LOG_FILE,
    PATTERNS,
    PROXIES,
    RUNTIMES,
    STATE_FILE,
    SandboxError,
)

if TYPE_CHECKING:
    from sandbox.up import Sandbox

CONTROL_SECONDS = 180.0


def main(arguments: Sequence[str] | None = None) -> int:
    """Run one command; returns the exit code."""
    options = _parser().parse_args(arguments)
    try:
        code: int = options.run(options)
    except SandboxError as error:
        print(f"sandbox: {error}", file=sys.stderr)
        return 1
    return code


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="python -m sandbox", description=__doc__)
    commands = parser.add_subparsers(required=True, metavar="COMMAND")

    up = commands.add_parser("up", help="run the sandbox until Ctrl-C")
    up.add_argument("--pattern", default="shifted-ports", help=f"one of {', '.join(PATTERNS)}")
    up.add_argument("--proxy", help=f"on every host of host-proxy, one of {', '.join(PROXIES)}")
    up.add_argument("--balancer", help=f"in front of the hosts, one of {', '.join(BALANCERS)}")
    up.add_argument("--hosts", type=int, metavar="N", help="container instances (2; host-proxy: 4)")
    up.add_argument("--runtime", default="process", help=f"one of {', '.join(RUNTIMES)}")
    up.add_argument(
        "--metrics",
        action="store_true",
        default=None,
        help="send container metrics to the Mackerel stand-in; --runtime docker always does",
    )
    up.add_argument(
        "--network", default="127.0.1", help="the first three numbers of a loopback /24"
    )
    up.add_argument(
        "--set",
        action="append",
        default=[],
        metavar="PATH=VALUE",
        help="change the service configuration (bake.seconds=1), a parameter of template.yaml "
        "(template.LeaseSeconds=5) or of the infrastructure (infrastructure.InstanceType=…), or "
        "the metrics configuration (metrics.each_task=true)",
    )
    _add_build_dir(up)
    up.set_defaults(run=_up)

    push = commands.add_parser("push", help="push an image, as docker push does")
    push.add_argument("image", metavar="NAME:TAG")
    push.add_argument("--command", help="the program to run; gets HOST and PORT")
    push.add_argument(
        "--fault",
        help="never_healthy, crash_loop, slow_start[=SECONDS], errors=PERCENT (of answers that are "
        "500) or slow=SECONDS (that each answer takes longer)",
    )
    push.add_argument("--times", type=int, metavar="N", help="how often the event comes (1)")
    push.add_argument(
        "--platforms", type=int, metavar="N", help="a multi-architecture image of so many (1)"
    )
    push.add_argument(
        "--findings", metavar="SEVERITY=N,…", help="what a scan finds: CRITICAL=1,HIGH=3, or none"
    )
    push.add_argument("--scan-seconds", type=float, metavar="S", help="how long the scan takes (0)")
    push.add_argument(
        "--scan", help="how the scan ends: COMPLETE (default), FAILED, ACTIVE, UNSUPPORTED_IMAGE"
    )
    _add_build_dir(push)
    push.set_defaults(run=_push)

    fault = commands.add_parser(
        "fault",
        help="turn a fault on, or all off",
        description="propagation_lag seconds=20 | api_error operation=ecs:UpdateService "
        "kind=throttle|error500|lost_answer [times=1] [function=CheckHealthFunction] | "
        "api_error operation=* kind=… each_once=true | traffic_changed_by_others "
        "weights='{web-blue: 50, web-green: 50}' [before=elasticloadbalancing:ModifyListener] | "
        "host kind=cannot_stage|broken_configuration|silent|dies|reboots|proxy_restarts host=2 "
        "[when=now|staged|committing|committed] [ec2=running] | host kind=appears [when=…] | "
        "group kind=cannot_launch group=web-green [message=…] | "
        "group kind=never_registers group=web-green [count=1] | "
        "group kind=instance_dies group=web-green when=starting|registered | "
        "group kind=scale_in|scale_out group=web-blue [by=1] [when=now|launching|shifted] | "
        "mackerel kind=outage|refused|throttle|slow|wrong_key|lost_answer [seconds=…] [times=…] "
        "[endpoint='POST /api/v0/tsdb'] | "
        "events kind=off|late|duplicated [seconds=5] [times=3] | "
        "slack kind=outage|throttle|slow|lost_answer|forbidden|unknown|archived|revoked [times=…] "
        "[seconds=…]",
    )
    fault.add_argument("name", nargs="?")
    fault.add_argument("values", nargs="*", metavar="KEY=VALUE")
    fault.add_argument("--clear", action="store_true", help="turn all faults off")
    _add_build_dir(fault)
    fault.set_defaults(run=_fault)
    return parser


def _add_build_dir(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "--build-dir", type=Path, default=BUILD_DIRECTORY, help="where sandbox.json is (build/)"
    )


def _up(options: argparse.Namespace) -> int:
    # Loading moto takes seconds, which the other commands do not need.
    from sandbox.stack import StackError
    from sandbox.up import Sandbox, terminable

    sandbox = Sandbox(
        pattern=options.pattern,
        hosts=options.hosts,
        network=options.network,
        runtime=options.runtime,
        build_dir=options.build_dir,
        overrides=_values(options.set),
        proxy=options.proxy,
        balancer=options.balancer,
        metrics=options.metrics,
    )
    with terminable():
        try:
            with sandbox:
                print(_welcome(sandbox), flush=True)
                threading.Event().wait()
        except StackError as error:
            raise SandboxError(str(error)) from error
        except KeyboardInterrupt:
            print("sandbox: stopped", flush=True)
    return 0


def _push(options: argparse.Namespace) -> int:
    given = ("image", "command", "fault", "times", "platforms", "findings", "scan_seconds", "scan")
    body = {name: getattr(options, name) for name in given}
    answer = _control(options, "POST", "push", {k: v for k, v in body.items() if v is not None})
    print(f"pushed {answer['image']}: {answer['digest']}")
    return 0


def _fault(options: argparse.Namespace) -> int:
    if options.clear:
        _control(options, "DELETE", "faults")
    if options.name:
        _control(options, "POST", "faults", {"name": options.name, **_values(options.values)})
    faults = _control(options, "GET", "faults")
    for fault in faults:
        print(json.dumps(fault))
    if not faults:
        print("no fault is on")
    return 0


def _control(
    options: argparse.Namespace, method: str, path: str, body: dict[str, Any] | None = None
) -> Any:
    """Ask the running sandbox; raises SandboxError when there is none or it refuses."""
    place = options.build_dir / STATE_FILE
    try:
        url = json.loads(place.read_text())["control_url"]
        answer = requests.request(method, url + path, json=body, timeout=CONTROL_SECONDS)
    except (OSError, ValueError) as error:
        raise SandboxError(
            f"no sandbox is running as {place} says; start one: python -m sandbox up"
        ) from error
    if not answer.ok:
        raise SandboxError(answer.json()["error"])
    return answer.json()


def _values(pairs: Sequence[str]) -> dict[str, Any]:
    """``KEY=VALUE`` arguments, each value read as YAML, or as it is when it is none (``*``)."""
    values = {}
    for pair in pairs:
        key, sign, value = pair.partition("=")
        if not sign or not key:
            raise SandboxError(f"{pair!r} is not KEY=VALUE")
        try:
            values[key] = yaml.safe_load(value)
        except yaml.YAMLError:
            values[key] = value
    return values


def _welcome(sandbox: Sandbox) -> str:
    facts = sandbox.description
    service = facts["service"]
    build = "" if sandbox.build_dir == BUILD_DIRECTORY else f" --build-dir {sandbox.build_dir}"
    deployment = json.dumps({"action": "deploy", "service": service, "images": {service: "v1"}})
    return f"""\
The sandbox is ready: {sandbox.build_dir / STATE_FILE}. Ctrl-C ends it. Try in another terminal:

  export AWS_ENDPOINT_URL={facts["aws_endpoint"]} AWS_DEFAULT_REGION={facts["region"]} \\
         AWS_ACCESS_KEY_ID=me AWS_SECRET_ACCESS_KEY=sandbox
  python -m sandbox push {service}:v1{build}
  aws stepfunctions start-execution --name first --state-machine-arn \\
    {facts["state_machine_arn"]} \\
    --input '{deployment}'
  aws stepfunctions list-executions --state-machine-arn \\
    {facts["state_machine_arn"]}
  curl -i {facts["url"]}
  curl {facts["control_url"]}state
  python -m sandbox fault propagation_lag seconds=20{build}

What functions and containers do: {sandbox.build_dir / LOG_FILE}"""


if __name__ == "__main__":
    sys.exit(main())
