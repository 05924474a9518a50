"""The plugin: numbers from the system's random source."""

from __future__ import annotations

import secrets

from metagov_sdk import Plugin, Rejected, action
from plugins.randomness.models import LuckyNumber, RandomInt, RandomIntParams, RandomnessConfig, RandomnessState


class Randomness(Plugin[RandomnessConfig, RandomnessState]):
    """Dice and draws for governance: random integers, and votes decided by lot."""

    name = "randomness"

    @action("set-lucky-number")
    async def set_lucky_number(self, params: LuckyNumber) -> LuckyNumber:
        """Remember a lucky number for the community."""
        self.change(lambda state: state.model_copy(update={"lucky_number": params.lucky_number}))
        return params

    @action("random-int")
    async def random_int(self, params: RandomIntParams) -> RandomInt:
        """A random integer from low to high, both included."""
        low = self.config.default_low if params.low is None else params.low
        high = self.config.default_high if params.high is None else params.high
        if high < low:
            # One end came from the call and the other from the config, so neither is wrong by itself.
            raise Rejected(f"the range is empty: low is {low} and high is {high}; name both ends")
        return RandomInt(value=low + secrets.randbelow(high - low + 1))
