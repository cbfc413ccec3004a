"""Which channels have been told what: one item ``told#<key>`` for each thing in the table of the
deployments, with a mark for each channel.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Literal

if TYPE_CHECKING:
    from mypy_boto3_dynamodb import DynamoDBClient

Claim = Literal["ours", "told", "unsure"]

# Longer than a message can wait in its queue and in the one for those that failed, 14 days each.
_KEPT_SECONDS = 40 * 86_400


class Told:
    """key: what is told. receipt: of the attempt, another one for every receive of a message."""

    def __init__(
        self, client: DynamoDBClient, table: str, key: str, receipt: str, now: float
    ) -> None:
        self._client = client
        self._table = table
        self._key = {"pk": {"S": f"told#{key}"}}
        self._receipt = receipt
        self._expires_at = str(int(now) + _KEPT_SECONDS)

    def claim(self, channel: str) -> Claim:
        """Whether this attempt is the one that tells.

        Answers "unsure" when an earlier attempt did not come to say whether it has told it. That
        is said once: from then on it counts as told.
        """
        if self._mark(channel, "attribute_not_exists(#channel)", f"claimed {self._receipt}"):
            return "ours"
        item = self._client.get_item(TableName=self._table, Key=self._key, ConsistentRead=True).get(
            "Item", {}
        )
        found = item.get(channel, {}).get("S", "")
        # The SDK repeats a call whose answer was lost: then it was this attempt after all.
        if found == f"claimed {self._receipt}":
            return "ours"
        if found.startswith("claimed"):
            self.confirm(channel)
            return "unsure"
        return "told"

    def confirm(self, channel: str) -> None:
        """It is told, or must not be told again."""
        self._mark(channel, None, "told")

    def is_told(self, channel: str) -> bool:
        """Whether it was confirmed."""
        item = self._client.get_item(TableName=self._table, Key=self._key, ConsistentRead=True).get(
            "Item", {}
        )
        return item.get(channel, {}).get("S") == "told"

    def give_back(self, channel: str) -> None:
        """It was certainly not told."""
        self._client.update_item(
            TableName=self._table,
            Key=self._key,
            UpdateExpression="REMOVE #channel",
            ExpressionAttributeNames={"#channel": channel},
        )

    def _mark(self, channel: str, condition: str | None, mark: str) -> bool:
        more: dict[str, Any] = {"ConditionExpression": condition} if condition else {}
        try:
            self._client.update_item(
                TableName=self._table,
                Key=self._key,
                UpdateExpression="SET #channel = :mark, expires_at = :expires",
                ExpressionAttributeNames={"#channel": channel},
                ExpressionAttributeValues={
                    ":mark": {"S": mark},
                    ":expires": {"N": self._expires_at},
                },
                **more,
            )
        except self._client.exceptions.ConditionalCheckFailedException:
            return False
        return True
