"""The history of processes, written by a trigger of the test's own, and the judge of what in it is legal."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from tests.faults.rig import Rig

# One row for each write that changed what a process is, numbered in the order of the writes to that process: they
# queue at its row's lock.
INSTALL = """
CREATE TABLE test_transitions (
    n bigint GENERATED ALWAYS AS IDENTITY, xid xid8 DEFAULT pg_current_xact_id(),
    process text, status text, outcome text, errors text, version int
);
CREATE FUNCTION test_note_transition() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
    INSERT INTO test_transitions (process, status, outcome, errors, version)
    VALUES (NEW.id, NEW.status, NEW.outcome::text, NEW.errors::text, NEW.version);
    RETURN NULL;
END $$;
CREATE TRIGGER test_note_birth AFTER INSERT ON processes FOR EACH ROW EXECUTE FUNCTION test_note_transition();
CREATE TRIGGER test_note_change AFTER UPDATE ON processes FOR EACH ROW
    WHEN ((OLD.status, OLD.outcome::text, OLD.errors::text, OLD.version)
          IS DISTINCT FROM (NEW.status, NEW.outcome::text, NEW.errors::text, NEW.version))
    EXECUTE FUNCTION test_note_transition();
CREATE FUNCTION test_note_death() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
    INSERT INTO test_transitions (process, status, version) VALUES (OLD.id, 'gone', OLD.version);
    RETURN NULL;
END $$;
CREATE TRIGGER test_note_death AFTER DELETE ON processes FOR EACH ROW EXECUTE FUNCTION test_note_death();
"""

_NEXT = {None: {"created"}, "created": {"pending", "completed"}, "pending": {"pending", "completed"}}


@dataclass(frozen=True, slots=True)
class Moment:
    """What a process was after one write. `outcome` and `errors` are JSON."""

    status: str
    outcome: str | None = None
    version: int = 0
    errors: str | None = "{}"

    @property
    def failed(self) -> bool:
        """Ended with errors."""
        return self.errors not in (None, "{}")


def faults(history: Sequence[Moment]) -> list[str]:
    """What is illegal in one process's history. A legal one: created, then pending, then completed or failed, for good.

    Each step raises the version; only a start that failed leaves it where it was. An end has an outcome or errors.
    """
    found = []
    before: Moment | None = None
    for number, moment in enumerate(history):
        where = f"step {number}, {before} -> {moment}"
        if moment.status not in _NEXT.get(before.status if before else None, set()):
            found.append(f"no such transition: {where}")
        if before is not None:
            start_failed = before.status == "created" and moment.status == "completed" and moment.failed
            if not (moment.version > before.version or (start_failed and moment.version == before.version)):
                found.append(f"the version does not rise: {where}")
        if moment.failed and moment.status != "completed":
            found.append(f"errors, and yet not ended: {where}")
        if moment.status == "completed" and moment.outcome is None and not moment.failed:
            found.append(f"ended with neither outcome nor errors: {where}")
        before = moment
    if before is None or before.status != "completed":
        found.append(f"never ended: {before}")
    return found


def illegal(histories: Iterable[tuple[str, Moment]]) -> list[str]:
    """What is illegal in the histories of many processes, their moments in order."""
    by_process: dict[str, list[Moment]] = defaultdict(list)
    for process, moment in histories:
        by_process[process].append(moment)
    return [f"{process}: {fault}" for process, history in by_process.items() for fault in faults(history)]


async def read(rig: Rig) -> list[tuple[str, Moment]]:
    """What the trigger wrote, in order; of several writes in one transaction the last, for nobody saw the others."""
    rows = await rig.rows("""
        SELECT * FROM (SELECT DISTINCT ON (process, xid) * FROM test_transitions ORDER BY process, xid, n DESC) AS seen
        ORDER BY n
    """)
    return [(row["process"], Moment(row["status"], row["outcome"], row["version"], row["errors"])) for row in rows]
