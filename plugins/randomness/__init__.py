"""Randomness: dice and draws for governance. The smallest complete plugin, and a good one to copy."""

from metagov_sdk import Manifest
from plugins.randomness.plugin import Randomness
from plugins.randomness.processes import DelayedStochasticVote

manifest = Manifest(Randomness, processes=[DelayedStochasticVote])
