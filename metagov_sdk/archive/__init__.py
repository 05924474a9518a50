"""Reading archives of mirrored data, and keeping them: what plugins and stores import.

A reader declares its own rows and never sees the code that wrote them; a store keeps bytes by name and one HEAD.
"""

from metagov_sdk.archive.errors import (
    ArchiveAway,
    ArchiveError,
    BadDigest,
    BadSignature,
    BrokenChain,
    CorruptArchive,
    HeadMoved,
    MissingFields,
    MissingObject,
    NoSnapshot,
    NotCanonical,
    OutOfOrder,
    RolledBack,
    TooLarge,
    Truncated,
    UnknownTable,
    WrongValue,
)
from metagov_sdk.archive.reader import ArchivedTable, ArchiveReader
from metagov_sdk.archive.rows import Row, bind_row
from metagov_sdk.archive.store import ArchiveSettings, DataArchive, Head

__all__ = [
    "ArchiveAway",
    "ArchiveError",
    "ArchiveReader",
    "ArchiveSettings",
    "ArchivedTable",
    "BadDigest",
    "BadSignature",
    "BrokenChain",
    "CorruptArchive",
    "DataArchive",
    "Head",
    "HeadMoved",
    "MissingFields",
    "MissingObject",
    "NoSnapshot",
    "NotCanonical",
    "OutOfOrder",
    "RolledBack",
    "Row",
    "TooLarge",
    "Truncated",
    "UnknownTable",
    "WrongValue",
    "bind_row",
]
