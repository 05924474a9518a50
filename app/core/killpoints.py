"""Points at which a test can make a process die by SIGKILL, and what the database has committed at each.

Off unless METAGOV_TEST_KILL_AT names a point: a call of `reached` then costs one comparison.
"""

from __future__ import annotations

import os
import re
import signal
from dataclasses import dataclass
from enum import Enum

import structlog

_SETTING = re.compile(r"([A-Z_]+)(?::([1-9][0-9]{0,8}))?")

_log = structlog.get_logger(__name__)


class KillPoint(Enum):
    """Every point by its name; the value says what is committed there and what is not."""

    WEBHOOKS_TAKEN = "nothing of a batch of webhooks is stored, and no sender has an answer"
    WEBHOOKS_STORED = "the batch's receipts are committed; no sender has an answer, no worker a hint"
    RECEIPT_CLAIMED = "the receipt's lease is committed; its handler has not been called"
    RECEIPT_HANDLED = "the handler has returned; what it emitted and `done` are written, and not committed"
    RECEIPT_COMMITTED = "`done` is committed with all that the handler emitted; nobody has been woken"
    POLL_EMITTED = "a poll has come to a checkpoint; neither what it emitted nor the cursor is committed"
    POLL_CHECKPOINTED = "the cursor is committed with what was emitted before it; nobody has been woken"
    DELIVERY_CLAIMED = "the delivery's lease is committed; nothing is signed yet"
    DELIVERY_SIGNED = "the message is signed; the POST has not been sent"
    DELIVERY_ANSWERED = "the endpoint has answered the POST; nothing of that is written"
    DELIVERY_SETTLED = "the attempt and what follows from it are committed"
    START_STORED = "the process's row is committed, by the API; the driver has no answer, the platform no question"
    START_MARKED = "the row says `starting`; the platform has not been asked"
    START_ANSWERED = "the platform has opened the process; nothing of its answer is committed"
    START_COMMITTED = "the started process is committed; nobody has been woken"
    FOLD_WRITTEN = "signals are applied, the step and its event written; nothing of it is committed"
    FOLD_COMMITTED = "the step is committed with its event and effects; nothing has been woken or rendered"
    RENDER_DONE = "the platform shows the newest state; the database still says that it does not"
    EFFECT_CLAIMED = "the effect's lease is committed; nothing has been performed"
    EFFECT_PERFORMED = "the platform has performed the effect; the database does not say so"
    RECOVER_WRITTEN = "the failed deliveries are due again, and not committed"
    RECOVER_COMMITTED = "the failed deliveries are due again, committed; the driver has no answer"
    REPLAY_ASKED = "no receipt is due again yet"
    REPLAY_COMMITTED = "the receipts are due again, committed; the driver has no answer"
    MIRROR_WRITTEN = "a page's rows, cursor and counters are written, and not committed"
    MIRROR_COMMITTED = (
        "a page is committed; nobody has been told of the partitions on it, and the next is not asked for"
    )
    MIRROR_CLOSING = "the run's last page is committed; its end, the event and the next time are written, not committed"
    ARCHIVE_STORED = "a snapshot's first blob is stored; neither manifest nor HEAD is"
    ARCHIVE_MOVED = "HEAD names the new snapshot; the database does not know of it"
    GRAPH_WRITTEN = "a graph's files are whole and in place; nothing names them"
    GRAPH_NAMED = "the row names the files, the event is written; nothing of it is committed"
    GRAPH_COMMITTED = "the row names the files, committed with the event; nobody has been woken"


@dataclass(slots=True)
class Trap:
    """Where to die, and how many times the point is still to be reached, that time included."""

    point: KillPoint
    left: int = 1


_armed: Trap | None = None


def parse(wanted: str) -> Trap | None:
    """`NAME` or `NAME:<n>`, for the n-th time it is reached; None for "". Raises ValueError for what is neither."""
    if not wanted:
        return None
    read = _SETTING.fullmatch(wanted)
    if read is None or read[1] not in KillPoint.__members__:
        known = ", ".join(KillPoint.__members__)
        raise ValueError(f"for tests only: unset it, or give it NAME or NAME:<n>, n from 1; the names are {known}")
    return Trap(KillPoint[read[1]], int(read[2] or 1))


def arm(wanted: str) -> None:
    """Have this process die as `parse` reads it, or never (""). Raises ValueError."""
    global _armed
    _armed = parse(wanted)
    if _armed is not None:
        _log.critical(
            "TEST ONLY: this process will kill itself; unset METAGOV_TEST_KILL_AT unless that is wanted",
            point=_armed.point.name,
            time=_armed.left,
        )


def reached(point: KillPoint) -> None:
    """Die here, if this is where the test wants it."""
    if _armed is None:
        return
    if _armed.point is point:
        _armed.left -= 1
        if _armed.left == 0:
            _log.critical("kill point reached", point=point.name)
            os.kill(os.getpid(), signal.SIGKILL)
