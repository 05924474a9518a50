"""Every table, imported for Alembic and nothing else."""

from app.accounts import models as accounts
from app.archives import models as archives
from app.console import models as console
from app.core.db import Base
from app.events import models as events
from app.graphs import models as graphs
from app.identity import models as identity
from app.inbound import models as inbound
from app.installs.oauth import models as oauth
from app.mirrors import models as mirrors
from app.processes import models as processes
from app.runtime import limits
from app.runtime import models as runtime

metadata = Base.metadata

__all__ = [
    "accounts",
    "archives",
    "console",
    "events",
    "graphs",
    "identity",
    "inbound",
    "limits",
    "metadata",
    "mirrors",
    "oauth",
    "processes",
    "runtime",
]
