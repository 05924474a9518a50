"""The plugin: votes cast by drivers."""

from __future__ import annotations

from metagov_sdk import Config, Plugin, action
from metagov_sdk.ballot import VOTE, read_choice, vote_data
from metagov_sdk.errors import Forbidden
from plugins.ballot.models import Cast, CastParams
from plugins.ballot.processes import BallotVote


class BallotConfig(Config):
    """Nothing to set."""


class Ballot(Plugin[BallotConfig]):
    """Votes that need no platform: single or several choices, approval, ranking, scores."""

    name = "ballot"

    @action("cast")
    async def cast(self, params: CastParams) -> Cast:
        """Cast a vote, or change it, as long as the vote is open. Once answered it is stored and will be counted."""
        vote = await self.processes.get(BallotVote, params.process_id)
        if not vote.params.may_vote(params.voter):
            raise Forbidden("this voter may not vote here")
        read_choice(vote.params, params.choice)
        data = vote_data(params.voter, params.choice)
        return Cast(position=await self.processes.send(BallotVote, vote.id, VOTE, data))
