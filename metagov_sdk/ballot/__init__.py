"""The voting standard: one set of parameters, one way to count, one shape of outcome for the votes of every platform.

    class Vote(BallotProcess[BallotParams, BallotState, BallotOutcome]):
        async def start(self, params):
            message = await self.plugin.http.post(…)
            return self.opened(params, key=message.json()["id"])

    self.emit(Vote.ballot_signal(key, voter="ada", choice="yes"))

The counts are functions of their own (`count`, `compare_pairs`, `schulze`, `instant_runoff`), for those who have
ballots from elsewhere.
"""

from metagov_sdk.ballot.chat import ChatBallotParams, ChatBallotProcess, ChatBallotState
from metagov_sdk.ballot.choice import ABSTENTION, Marks, read_choice
from metagov_sdk.ballot.outcome import BallotOutcome, OptionTally, count
from metagov_sdk.ballot.params import BallotParams, BallotRules, Kind, Voter
from metagov_sdk.ballot.process import VOTE, BallotProcess, BallotState, Vote, vote_data
from metagov_sdk.ballot.ranking import (
    Pairs,
    Profile,
    Runoff,
    compare_pairs,
    condorcet_winner,
    instant_runoff,
    schulze,
)
from metagov_sdk.ballot.standing import Standing, standings, sum_up

__all__ = [
    "ABSTENTION",
    "VOTE",
    "BallotOutcome",
    "BallotParams",
    "BallotProcess",
    "BallotRules",
    "BallotState",
    "ChatBallotParams",
    "ChatBallotProcess",
    "ChatBallotState",
    "Kind",
    "Marks",
    "OptionTally",
    "Pairs",
    "Profile",
    "Runoff",
    "Standing",
    "Vote",
    "Voter",
    "compare_pairs",
    "condorcet_winner",
    "count",
    "instant_runoff",
    "read_choice",
    "schulze",
    "standings",
    "sum_up",
    "vote_data",
]
