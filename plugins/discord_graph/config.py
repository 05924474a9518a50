"""The configuration. Names are SourceCred's own, so that what stands in an instance's config.json can be used as it is.

Source: src/plugins/discord/config.js of SourceCred 0.11.2.
"""

from __future__ import annotations

from collections.abc import Mapping
from datetime import UTC, datetime
from typing import Annotated, Any

from pydantic import AfterValidator, Field, field_validator

from metagov_sdk import Model
from metagov_sdk.graph import GraphConfig

_FIRST = datetime(1970, 1, 1, tzinfo=UTC)
Weight = Annotated[float, Field(strict=True, ge=0, allow_inf_nan=False)]


def _id(text: str) -> str:
    """What stands before `//`: a comment may follow."""
    id = text.split("//")[0]
    if not id or id != id.strip() or "\0" in id:
        raise ValueError("write it as an id, or as an id with a comment: 759191073943191613//the core team")
    return id


def _by_id(weights: Mapping[str, float]) -> dict[str, float]:
    found: dict[str, str] = {}
    for written in weights:
        if (other := found.setdefault(_id(written), written)) != written:
            raise ValueError(f"{other!r} and {written!r} are the same id")
    return {_id(written): weight for written, weight in weights.items()}


Id = Annotated[str, AfterValidator(_id)]
ById = Annotated[dict[str, Weight], AfterValidator(_by_id)]


class ReactionWeights(Model):
    """What a reaction is worth by its emoji: the character, or `name:id` of one of the server's own."""

    defaultWeight: Weight
    weights: dict[str, Weight]
    applyAveraging: bool = Field(strict=True)
    """Whether a message's weight is the average over those who reacted, and not the sum."""
    confidenceDampener: Weight = 0
    """Added to their number when the average is taken, so that one lone reaction does not count in full."""


class RoleWeights(Model):
    """What a reaction is worth by who reacts: the greatest of the weights of their roles, at least the default."""

    defaultWeight: Weight
    weights: ById


class ChannelWeights(Model):
    """What a reaction is worth by where: the channel's own weight, else its category's, else the default."""

    defaultWeight: Weight
    weights: ById


class SourceCredConfig(Model):
    """One entry of SourceCred's `config/plugins/sourcecred/discord/config.json`."""

    guildId: Id
    reactionWeightConfig: ReactionWeights
    roleWeightConfig: RoleWeights = RoleWeights(defaultWeight=1, weights={})
    channelWeightConfig: ChannelWeights = ChannelWeights(defaultWeight=1, weights={})
    propsChannels: tuple[str, ...] = ()
    """Channels where a mention hands the writer's share on to whom it names, and one's own reaction counts."""
    includeNsfwChannels: bool = Field(default=False, strict=True)
    simplifyGraph: bool = Field(default=False, strict=True)
    """Whether messages carry the weight, and reactions are left out."""
    beginningDate: str | None = None
    """Messages before it are left out. ISO 8601; in UTC if it names no zone."""

    @field_validator("beginningDate")
    @classmethod
    def _check_date(cls, text: str | None) -> str | None:
        if text is not None:
            _moment(text)
        return text

    @property
    def begins_at(self) -> datetime | None:
        """`beginningDate` as a time; nothing is older than 1970."""
        return None if self.beginningDate is None else max(_moment(self.beginningDate), _FIRST)


class DiscordGraphConfig(GraphConfig):
    """SourceCred's configuration, and switches for what it has no word for. All of them are off in SourceCred."""

    source: str = "discord"
    """The plugin whose archive is read."""
    config: SourceCredConfig
    """An entry of SourceCred's config.json, or the whole of it if it has one entry."""
    threads: bool = False
    """Whether threads count, as their channels do."""
    deleted: bool = False
    """Whether what is deleted counts, and who has left: SourceCred's own copy of a server forgets nothing it saw."""
    anchor: bool = True
    """Whether a graph that credrank would refuse (of an empty server, say) gets a node that makes it pass."""

    @field_validator("config", mode="before")
    @classmethod
    def _unwrap(cls, value: Any) -> Any:
        if isinstance(value, list):
            if len(value) != 1:
                raise ValueError(f"an archive is of one server: give one entry, not {len(value)}")
            return value[0]
        return value


def _moment(text: str) -> datetime:
    try:
        moment = datetime.fromisoformat(text)
        if moment.tzinfo is None:
            return moment.replace(tzinfo=UTC)
        return moment if moment < _FIRST else moment.astimezone(UTC)
    except (ValueError, OverflowError):
        raise ValueError("not a date or time of ISO 8601, as in 2021-03-01 or 2021-03-01T09:00:00Z") from None
