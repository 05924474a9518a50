"""Votes decided by lot."""

from __future__ import annotations

import secrets
from datetime import timedelta

from metagov_sdk import CloseReason, Completed, Pending, Process, Step
from plugins.randomness.models import VoteParams, VoteState, Winner


class DelayedStochasticVote(Process[VoteParams, VoteState, Winner]):
    """Draw one of several options, and make it known after a delay. Closing it early makes it known at once."""

    name = "delayed-stochastic-vote"

    async def start(self, params: VoteParams) -> Step[VoteState, Winner]:
        """Draw now, tell later."""
        state = VoteState(options=tuple(params.options), drawn=secrets.randbelow(len(params.options)))
        if params.delay == 0:
            return Completed(Winner(winner=state.winner))
        return Pending(state, closing_at=self.now + timedelta(minutes=params.delay))

    async def find_started(self, params: VoteParams) -> Step[VoteState, Winner] | None:
        """Nothing is made outside the gateway, so a start whose answer was lost may be repeated."""
        return None

    @classmethod
    def close(cls, state: VoteState, why: CloseReason) -> Completed[Winner]:
        """The option that was drawn, whatever ends the wait."""
        return Completed(Winner(winner=state.winner))
