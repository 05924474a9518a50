"""What plugin authors import: `from metagov_sdk import Plugin, action, …`. It knows nothing of the gateway itself."""

from metagov_sdk.accounts import AccountLink, Accounts, LinkQuality, LinkType
from metagov_sdk.actions import ActionSpec, action
from metagov_sdk.errors import ManifestError, PluginError, Rejected, Retry, Unauthorized
from metagov_sdk.events import Event, Initiator, OpenEvent
from metagov_sdk.headers import Headers
from metagov_sdk.manifest import Manifest, ProcessSpec
from metagov_sdk.models import Config, Model, NoSettings, NoState, Settings, State
from metagov_sdk.plugin import Call, Emitted, EmittedEvent, Plugin
from metagov_sdk.polls import Checkpoint, PollSpec, poll
from metagov_sdk.process import (
    CloseReason,
    Completed,
    Do,
    Failed,
    Pending,
    Process,
    Received,
    Signal,
    Status,
    Step,
)
from metagov_sdk.verify import (
    SecretRef,
    Unsigned,
    Verifier,
    config,
    ecdsa_p256,
    ed25519,
    hmac_sha256,
    setting,
    slack_v0,
    standard_webhooks,
    unsigned,
)
from metagov_sdk.webhook import HookRequest, Reply, Wake, WebhookSpec, by_header, webhook

__all__ = [
    "AccountLink",
    "Accounts",
    "ActionSpec",
    "Call",
    "Checkpoint",
    "CloseReason",
    "Completed",
    "Config",
    "Do",
    "Emitted",
    "EmittedEvent",
    "Event",
    "Failed",
    "Headers",
    "HookRequest",
    "Initiator",
    "LinkQuality",
    "LinkType",
    "Manifest",
    "ManifestError",
    "Model",
    "NoSettings",
    "NoState",
    "OpenEvent",
    "Pending",
    "Plugin",
    "PluginError",
    "PollSpec",
    "Process",
    "ProcessSpec",
    "Received",
    "Rejected",
    "Reply",
    "Retry",
    "SecretRef",
    "Settings",
    "Signal",
    "State",
    "Status",
    "Step",
    "Unauthorized",
    "Unsigned",
    "Verifier",
    "Wake",
    "WebhookSpec",
    "action",
    "by_header",
    "config",
    "ecdsa_p256",
    "ed25519",
    "hmac_sha256",
    "poll",
    "setting",
    "slack_v0",
    "standard_webhooks",
    "unsigned",
    "webhook",
]
