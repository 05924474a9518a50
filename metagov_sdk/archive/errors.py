"""What can be wrong with an archive, each by name.

ArchiveError
├── NoSnapshot       there is none (yet), or none with this id
├── UnknownTable     the snapshot has no such table
├── MissingFields    the table has not what a reader's row declares
├── WrongValue       a value is not what a row declares, or cannot be archived
├── HeadMoved        another writer was first; only a store raises it
├── ArchiveAway      the place where the archive lies does not answer, or refuses
└── CorruptArchive   what was read is not what was written; nothing of it is handed on
    ├── MissingObject   a blob or manifest is not there
    ├── Truncated       it is shorter than the manifest says
    ├── BadDigest       its bytes are not those the manifest names
    ├── TooLarge        it claims or holds more than a reader takes
    ├── NotCanonical    it is not the one way of writing what it says
    ├── OutOfOrder      rows or chunks do not stand in the order of their keys
    ├── BadSignature    the manifest is not signed by a key that is trusted
    ├── BrokenChain     a manifest does not follow from the one before
    └── RolledBack      HEAD is older than one that was seen before
"""

from __future__ import annotations


class ArchiveError(Exception):
    """Something about an archive, in words for whoever has to mend it."""


class NoSnapshot(ArchiveError):
    """There is no snapshot, or none with the id that was asked for."""


class UnknownTable(ArchiveError):
    """The snapshot holds no table of this name."""


class MissingFields(ArchiveError):
    """A reader's row declares fields that the table lacks, or has as something else."""


class WrongValue(ArchiveError):
    """A value is not of the type that is declared, or one that an archive cannot hold."""


class HeadMoved(ArchiveError):
    """HEAD is no longer what the writer built on."""


class ArchiveAway(ArchiveError):
    """The store cannot be reached, or refuses."""


class CorruptArchive(ArchiveError):
    """What was read is not what was written."""


class MissingObject(CorruptArchive):
    """A blob or manifest that is referred to is not there."""


class Truncated(CorruptArchive):
    """An object is shorter than what refers to it says."""


class BadDigest(CorruptArchive):
    """An object's bytes are not those that its digest names."""


class TooLarge(CorruptArchive):
    """An object claims, or holds, more than a reader takes."""


class NotCanonical(CorruptArchive):
    """An object is not written in the one way there is to write it."""


class OutOfOrder(CorruptArchive):
    """Rows or chunks do not stand in the order of their keys."""


class BadSignature(CorruptArchive):
    """A manifest is not signed by a trusted key."""


class BrokenChain(CorruptArchive):
    """A manifest does not follow from the one that it names as the previous."""


class RolledBack(CorruptArchive):
    """HEAD is older than, or another than, one that was seen before."""
