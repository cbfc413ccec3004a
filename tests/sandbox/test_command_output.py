"""What a script prints: the beginning from Run Command, all of it from the bucket of the command.

The bucket is made from a template, with what such a bucket should have.
"""

from __future__ import annotations

import json
import time
from collections.abc import Iterator
from contextlib import suppress
from typing import Any

import pytest

from tests.sandbox.small_stack import INSTANCE, SmallStack

BUCKET = "small-output"
LINE = "0123456789" * 10
TEMPLATE = """
Resources:
  Output:
    Type: AWS::S3::Bucket
    Properties:
      Tags: [{Key: for, Value: tests}]
      BucketEncryption:
        ServerSideEncryptionConfiguration:
          - ServerSideEncryptionByDefault: {SSEAlgorithm: AES256}
      OwnershipControls: {Rules: [{ObjectOwnership: BucketOwnerEnforced}]}
      PublicAccessBlockConfiguration:
        BlockPublicAcls: true
        BlockPublicPolicy: true
        IgnorePublicAcls: true
        RestrictPublicBuckets: true
      LifecycleConfiguration:
        Rules:
          - Id: soon
            Status: Enabled
            Prefix: metrics/
            ExpirationInDays: 1
            AbortIncompleteMultipartUpload: {DaysAfterInitiation: 1}
  OutputPolicy:
    Type: AWS::S3::BucketPolicy
    Properties:
      Bucket: !Ref Output
      PolicyDocument:
        Version: "2012-10-17"
        Statement:
          - Effect: Deny
            Principal: "*"
            Action: s3:*
            Resource: [!GetAtt Output.Arn, !Sub "${Output.Arn}/*"]
            Condition: {Bool: {"aws:SecureTransport": false}}
  Document:
    Type: AWS::SSM::Document
    Properties:
      Name: print
      Content:
        schemaVersion: "2.2"
        parameters: {Lines: {type: String}, Errors: {type: String, default: "0"}}
        mainSteps:
          - action: aws:runShellScript
            name: print
            inputs:
              runCommand:
                - for i in $(seq {{ Lines }}); do echo LINE; done
                - for i in $(seq {{ Errors }}); do echo wrong >&2; done
""".replace("LINE", LINE)


@pytest.fixture(scope="module")
def stack(tmp_path_factory: pytest.TempPathFactory) -> Iterator[SmallStack]:
    stack = SmallStack(tmp_path_factory.mktemp("output"))
    try:
        stack.start(TEMPLATE, {})
        yield stack
    finally:
        stack.stop()


def run(stack: SmallStack, lines: int, errors: int = 0, **how: str) -> dict[str, Any]:
    """Run the document; what GetCommandInvocation says at the end."""
    ssm = stack.client("ssm")
    command = ssm.send_command(
        DocumentName="print",
        InstanceIds=[INSTANCE],
        Parameters={"Lines": [str(lines)], "Errors": [str(errors)]},
        **how,
    )["Command"]["CommandId"]
    deadline = time.monotonic() + 10
    while time.monotonic() < deadline:
        time.sleep(0.1)
        with suppress(ssm.exceptions.InvocationDoesNotExist):
            got: dict[str, Any] = ssm.get_command_invocation(CommandId=command, InstanceId=INSTANCE)
            if got["Status"] not in ("Pending", "InProgress"):
                return got
    raise AssertionError(command)


def keys(stack: SmallStack) -> set[str]:
    listed = stack.client("s3").list_objects_v2(Bucket=BUCKET)
    return {item["Key"] for item in listed.get("Contents", [])}


def test_short_output_is_there_as_it_is(stack: SmallStack) -> None:
    got = run(stack, 2)

    assert got["StandardOutputContent"] == f"{LINE}\n{LINE}\n"
    assert got["ResponseCode"] == 0
    assert got["StandardOutputUrl"] == ""


def test_long_output_is_cut_and_whole_in_the_bucket(stack: SmallStack) -> None:
    got = run(stack, 300, OutputS3BucketName=BUCKET, OutputS3KeyPrefix="metrics/now")

    assert len(got["StandardOutputContent"]) == 24_000
    assert got["StandardOutputContent"].endswith("--output truncated--")
    key = f"metrics/now/{got['CommandId']}/{INSTANCE}/awsrunShellScript/print/stdout"
    assert got["StandardOutputUrl"] == (f"https://s3.ap-northeast-1.amazonaws.com/{BUCKET}/{key}")
    whole = stack.client("s3").get_object(Bucket=BUCKET, Key=key)["Body"].read().decode()
    assert whole == f"{LINE}\n" * 300


def test_a_list_shows_2500_characters(stack: SmallStack) -> None:
    got = run(stack, 300, OutputS3BucketName=BUCKET)

    (listed,) = stack.client("ssm").list_command_invocations(
        CommandId=got["CommandId"], Details=True
    )["CommandInvocations"]
    (plugin,) = listed["CommandPlugins"]
    assert len(plugin["Output"]) == 2_500
    assert plugin["OutputS3BucketName"] == BUCKET
    assert plugin["OutputS3KeyPrefix"] == f"{got['CommandId']}/{INSTANCE}/awsrunShellScript"


def test_what_was_not_printed_makes_no_object(stack: SmallStack) -> None:
    silent = run(stack, 0, OutputS3BucketName=BUCKET, OutputS3KeyPrefix="none")
    both = run(stack, 1, errors=1, OutputS3BucketName=BUCKET, OutputS3KeyPrefix="both")

    assert silent["Status"] == "Success"
    assert not {key for key in keys(stack) if key.startswith("none/")}
    names = {key.rpartition("/")[2] for key in keys(stack) if both["CommandId"] in key}
    assert names == {"stdout", "stderr"}


def test_a_bucket_that_is_not_there_fails_no_command(stack: SmallStack) -> None:
    got = run(stack, 1, OutputS3BucketName="of-somebody-else")

    assert got["Status"] == "Success"
    assert got["StandardOutputContent"] == f"{LINE}\n"


def test_the_bucket_is_what_the_template_says(stack: SmallStack) -> None:
    s3 = stack.client("s3")
    (rule,) = s3.get_bucket_lifecycle_configuration(Bucket=BUCKET)["Rules"]
    assert rule["Expiration"] == {"Days": 1}
    assert rule["Filter"] == {"Prefix": "metrics/"}
    assert rule["AbortIncompleteMultipartUpload"] == {"DaysAfterInitiation": 1}
    block = s3.get_public_access_block(Bucket=BUCKET)["PublicAccessBlockConfiguration"]
    assert all(block.values())
    encryption = s3.get_bucket_encryption(Bucket=BUCKET)["ServerSideEncryptionConfiguration"]
    (one,) = encryption["Rules"]
    assert one["ApplyServerSideEncryptionByDefault"] == {"SSEAlgorithm": "AES256"}
    policy = json.loads(s3.get_bucket_policy(Bucket=BUCKET)["Policy"])
    assert policy["Statement"][0]["Resource"][1] == f"arn:aws:s3:::{BUCKET}/*"
    assert s3.get_bucket_tagging(Bucket=BUCKET)["TagSet"] == [{"Key": "for", "Value": "tests"}]
