"""The steps of forgetting somebody that this floor and those below it have."""

from __future__ import annotations

from app.mirrors.forget import Step
from app.mirrors.forget_records import (
    forget_events,
    forget_identity,
    forget_processes,
    forget_receipts,
    forget_seen_keys,
    forget_states,
)
from app.mirrors.forget_rows import (
    forget_answers,
    forget_oddities,
    forget_partitions,
    forget_rows,
    learn_names,
    stop_readers,
)

MIRROR_STEPS = (
    # What tells who the person is comes before whatever takes that out.
    Step("readers", stop_readers),
    Step("names", learn_names),
    Step("rows", forget_rows),
    Step("oddities", forget_oddities),
    Step("answers", forget_answers),
    Step("partitions", forget_partitions),
    # In the order in which one makes the next: a webhook signals, a signal is told of.
    Step("webhooks", forget_receipts),
    Step("processes", forget_processes),
    Step("events", forget_events),
    Step("identities", forget_identity),
    Step("states", forget_states),
    Step("keys", forget_seen_keys),
)
