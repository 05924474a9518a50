"""GitHub: what happens in the repositories of a GitHub App's installation."""

from metagov_sdk import Manifest
from plugins.github.models import GithubEvent
from plugins.github.plugin import Github

manifest = Manifest(Github, events=[GithubEvent])
