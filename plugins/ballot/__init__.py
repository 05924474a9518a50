"""Ballot: votes that need no platform. Drivers open them and cast what their own users choose."""

from metagov_sdk import Manifest
from plugins.ballot.plugin import Ballot
from plugins.ballot.processes import BallotVote

manifest = Manifest(Ballot, processes=[BallotVote])
