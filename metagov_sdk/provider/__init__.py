"""Data providers: a platform mirrored into tables, a page at a time, with no holes.

class DiscordMirror(DataProvider[Discord]):
    \"\"\"One server: its channels and what is said in them.\"\"\"

    @listing(Channel)
    async def channels(self, place: Place) -> Page:
        found = await self.plugin.ask("GET", f"guilds/{self.plugin.config.guild_id}/channels")
        rows = [Channel.read(each) for each in found]
        return Page(rows, children=[Child("messages", row.id, row, fingerprint=row.last_message_id) for row in rows])

    @log(Message, parent="channels", position=lambda row: int(row.id))
    async def messages(self, place: Place) -> Page:
        query = {"limit": "100", "after": str(place.after)}
        found = await self.plugin.ask("GET", f"channels/{place.partition}/messages", query=query)
        return Page([Message.read(each) for each in found], next=len(found) == 100 or None)
"""

from metagov_sdk.provider.provider import DataProvider, ProviderSpec
from metagov_sdk.provider.records import Column, Key, Record, at
from metagov_sdk.provider.walks import Child, Page, Place, Walk, detail, listing, log, lookup

__all__ = [
    "Child",
    "Column",
    "DataProvider",
    "Key",
    "Page",
    "Place",
    "ProviderSpec",
    "Record",
    "Walk",
    "at",
    "detail",
    "listing",
    "log",
    "lookup",
]
