"""A vote that lives in the gateway alone."""

from __future__ import annotations

from metagov_sdk import Step
from metagov_sdk.ballot import BallotOutcome, BallotParams, BallotProcess, BallotState


class BallotVote(BallotProcess[BallotParams, BallotState, BallotOutcome]):
    """A vote by one option, several, approval, ranking or scores; cast through the action `ballot.cast`."""

    name = "vote"

    async def start(self, params: BallotParams) -> Step[BallotState, BallotOutcome]:
        """Open it. Nothing is made outside the gateway."""
        # It may have waited for a worker beyond its time; then it fails rather than close with nobody asked.
        self.check(params, self.now)
        return self.opened(params, key=self.id)

    async def find_started(self, params: BallotParams) -> Step[BallotState, BallotOutcome] | None:
        """A start whose answer was lost made nothing, and may be repeated."""
        return None
