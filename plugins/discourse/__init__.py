"""Discourse: what happens in a forum, as events, and a mirror of its topics, posts and people."""

from metagov_sdk import Manifest
from plugins.discourse.models import DiscourseEvent
from plugins.discourse.plugin import Discourse
from plugins.discourse.provider import DiscourseMirror

manifest = Manifest(Discourse, events=[DiscourseEvent], provider=DiscourseMirror)
