"""SourceCred: how much cred a community's members have earned, read from its SourceCred instance."""

from metagov_sdk import Manifest
from plugins.sourcecred.plugin import SourceCred

manifest = Manifest(SourceCred)
