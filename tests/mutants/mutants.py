"""For each promise of docs/reliability.md: a change that takes its mechanism out, and the test that turns red by it."""

from __future__ import annotations

from typing import NamedTuple


class Mutant(NamedTuple):
    """`old` stands once in `file`; with `new` in its place `test` fails."""

    row: str
    """The promise's number, and a word where it has several mechanisms."""
    mechanism: str
    file: str
    old: str
    new: str
    test: str


MUTANTS = (
    Mutant(
        "1",
        "a webhook is answered once its receipt is committed",
        "app/inbound/store.py",
        "        return [await answers[0]] if len(answers) == 1 else await asyncio.gather(*answers)\n",
        '        return ["stored" for _ in answers]\n',
        "tests/faults/test_chaos.py::test_nothing_is_lost_or_doubled[one of each]",
    ),
    Mutant(
        "4",
        "the dedupe key is claimed in the statement that stores, so a repeat finds it",
        "app/inbound/store.py",
        "    WHERE l.key IS NULL OR (l.leads AND (l.instance_id, l.key) IN (SELECT instance_id, key FROM fresh))\n",
        "    WHERE true\n",
        "tests/faults/test_lost_answer.py::test_postgres_commits_and_the_api_never_hears_of_it",
    ),
    Mutant(
        "5",
        "a sweep finds what no hint announced",
        "app/worker.py",
        "await bells.wait(name, sweep)",
        "await bells.wait(name, 3600)",
        "tests/faults/test_outages.py::test_redis_away_slow_or_empty_delays_nothing_for_long",
    ),
    Mutant(
        "6",
        "a database that cannot be reached is told from a statement that is wrong: 503, not 500",
        "app/core/db.py",
        "    return isinstance(error, _AWAY) and not isinstance(error, ValueError)\n",
        "    return False\n",
        "tests/faults/test_outages.py::test_postgres_away_is_said_at_once_and_forgotten_soon",
    ),
    Mutant(
        "6 frozen",
        "a hot statement has a deadline",
        "app/core/db.py",
        "_HOT_TIMEOUT = 8.0\n",
        "_HOT_TIMEOUT = 600.0\n",
        "tests/faults/test_frozen_postgres.py::test_a_frozen_postgres_is_said_in_time_and_forgotten_soon",
    ),
    Mutant(
        "7",
        "of equal webhooks in one batch the first leads",
        "app/inbound/store.py",
        "row_number() OVER (PARTITION BY input.instance_id, input.key ORDER BY input.place) = 1 AS leads",
        "true AS leads",
        "tests/inbound/test_intake.py::test_verdicts_come_in_order_whatever_the_statement_said",
    ),
    Mutant(
        "9",
        "the signed timestamp has a window",
        "metagov_sdk/verify.py",
        "abs(now - int(value)) <= tolerance",
        "abs(now - int(value)) < float('inf')",
        "tests/sdk/test_verify.py::test_timestamp_window_is_300_seconds_both_ways",
    ),
    Mutant(
        "10",
        "bodies are stored as the bytes that came",
        "app/inbound/store.py",
        "        [item.body for item in batch],\n",
        '        [item.body.decode("utf-8", "replace").encode() for item in batch],\n',
        "tests/inbound/test_as_sent.py::test_bodies_are_kept_byte_for_byte",
    ),
    Mutant(
        "11",
        "a plugin's call is cut off after its time",
        "app/runtime/calls.py",
        """        async with asyncio.timeout(seconds):
            return await call
    except Exception as error:
        # Plugin code is foreign:""",
        """        async with asyncio.timeout(None):
            return await call
    except Exception as error:
        # Plugin code is foreign:""",
        "tests/faults/test_hanging_handler.py::test_a_hanging_handler_is_cut_off_and_tried_again",
    ),
    Mutant(
        "12",
        "a delivery has a deadline in all",
        "app/core/egress/deliveries.py",
        "total=total_seconds, sock_connect",
        "total=None, sock_connect",
        "tests/faults/test_hostile_driver.py::test_hostile_drivers_cost_time_and_memory_within_bounds",
    ),
    Mutant(
        "12 memory",
        "no more than 64 KiB of an answer are read",
        "app/events/deliver.py",
        "await read_capped(response, _KEPT_ANSWER)",
        "await response.read()",
        "tests/faults/test_hostile_driver.py::test_hostile_drivers_cost_time_and_memory_within_bounds",
    ),
    Mutant(
        "13",
        "every address is checked before it is dialled",
        "app/core/egress/policy.py",
        "        if kind is not None:\n            subject =",
        "        if False:\n            subject =",
        "tests/test_closed_networks.py",
    ),
    Mutant(
        "14",
        "a worker has but so many deliveries of one endpoint in hand",
        "app/events/claim.py",
        "PER_ENDPOINT = 192\n",
        "PER_ENDPOINT = 100_000\n",
        "tests/events/test_pacing.py::test_a_dead_endpoint_with_much_waiting_starves_nobody",
    ),
    Mutant(
        "14 circuit",
        "an endpoint that fails again and again is probed once in a while, and not posted to",
        "app/events/claim.py",
        "OPEN_AFTER = 5\n",
        "OPEN_AFTER = 1_000_000\n",
        "tests/faults/test_driver_down.py::test_a_driver_that_was_down_gets_everything_and_no_other_notices",
    ),
    Mutant(
        "15",
        "the last of several failures in a row opens the endpoint's circuit, in the database",
        "app/events/settle.py",
        "            CASE WHEN failures + 1 = :open_after OR (:probe AND failures >= :open_after)\n",
        "            CASE WHEN false\n",
        "tests/events/test_pacing.py::test_a_circuit_opens_probes_and_closes",
    ),
    Mutant(
        "15 Retry-After",
        "Retry-After is read",
        "app/events/deliver.py",
        "    if response.status in (429, 503) and value.isascii() and value.isdigit():\n",
        "    if response.status in () and value.isascii() and value.isdigit():\n",
        "tests/events/test_answers.py::test_retry_after_is_kept_to",
    ),
    Mutant(
        "15 gone",
        "410 ends a delivery",
        "app/events/deliver.py",
        "    if result.status == 410 or item.attempt > len(SCHEDULE):\n",
        "    if item.attempt > len(SCHEDULE):\n",
        "tests/events/test_answers.py::test_a_callback_that_is_gone_ends_its_delivery_and_no_other",
    ),
    Mutant(
        "16",
        "the old secret signs beside the new one while they overlap",
        "app/events/claim.py",
        "secrets = (endpoint.secret, endpoint.previous_secret if overlap else None)",
        "secrets = (endpoint.secret, None)",
        "tests/faults/test_rotation.py::test_secrets_rotate_under_load",
    ),
    Mutant(
        "16 after",
        "the old secret is dead after the overlap",
        "app/events/claim.py",
        "secrets = (drivers, drivers_previous if drivers_overlap else None)",
        "secrets = (drivers, drivers_previous)",
        "tests/faults/test_rotation.py::test_secrets_rotate_under_load",
    ),
    Mutant(
        "17",
        "of each lane only the first undelivered is offered",
        "app/events/claim.py",
        "         WHERE NOT eligible.ordered AND d.endpoint_id = eligible.id AND d.next_at <= now()\n",
        "         WHERE d.endpoint_id = eligible.id AND d.next_at <= now()\n",
        "tests/faults/test_ordered.py::test_no_community_hears_its_events_out_of_order",
    ),
    Mutant(
        "18",
        "readers stop at the oldest transaction that is open",
        "app/events/log.py",
        '_BELOW_THE_LINE = "(era < current_era() OR xid < pg_snapshot_xmin(pg_current_snapshot()))"',
        '_BELOW_THE_LINE = "true"',
        "tests/events/test_log.py::test_an_event_that_commits_late_is_not_skipped",
    ),
    Mutant(
        "19",
        "what became of a row is written under the epoch of its claim",
        "app/core/work.py",
        "        .where(table.id == held.id, table.epoch == held.epoch)\n",
        "        .where(table.id == held.id)\n",
        "tests/faults/test_stopped_worker.py::test_a_worker_that_slept_past_its_leases_changes_nothing",
    ),
    Mutant(
        "19 deliveries",
        "a delivery's outcome is written under the epoch of its claim",
        "app/events/settle.py",
        "AND d.epoch = input.epoch AND d.status = 'pending'",
        "AND d.status = 'pending'",
        "tests/events/test_answers.py::test_what_came_of_an_attempt_past_its_lease_is_not_written",
    ),
    Mutant(
        "19 failures",
        "a failed attempt is written under the epoch of its claim",
        "app/events/settle.py",
        "    WHERE id = :delivery AND epoch = :epoch AND status = 'pending'\n",
        "    WHERE id = :delivery AND status = 'pending'\n",
        "tests/events/test_answers.py::test_what_came_of_an_attempt_past_its_lease_is_not_written",
    ),
    Mutant(
        "19 batches",
        "receipts are finished together, each under the epoch of its claim",
        "app/core/work.py",
        ".where(table.id == claimed.c.id, table.epoch == claimed.c.epoch, table.id == any_(ids))",
        ".where(table.id == claimed.c.id, table.id == any_(ids))",
        "tests/inbound/test_batches.py::test_a_lost_lease_in_a_batch_writes_nothing",
    ),
    Mutant(
        "2",
        "what a handler emitted is committed with the receipt's end",
        "app/inbound/handle.py",
        "        queues = await commit(session, use.host, [item.",
        "        async with use.db.begin() as own:\n            queues = await commit(own, use.host, [item.",
        "tests/faults/test_kill_points.py::test_work_goes_on_and_is_done_once",
    ),
    Mutant(
        "3",
        "a start whose answer was lost is looked for before it is repeated",
        "app/processes/start.py",
        "    searching = row.starting and row.attempt > 0\n",
        "    searching = False\n",
        "tests/faults/test_process_chaos.py::test_no_illegal_transition_and_each_vote_ends_once",
    ),
    Mutant(
        "8",
        "what cannot be encoded is refused, not raised",
        "metagov_sdk/verify.py",
        "    except UnicodeEncodeError:  # a lone surrogate\n",
        "    except ZeroDivisionError:\n",
        "tests/sdk/test_verify_fuzz.py::test_agrees_with_the_vendors_own_library",
    ),
    Mutant(
        "22",
        "only what failed is recovered",
        "app/events/deliveries.py",
        'or_(Delivery.status == "dead", waits)',
        'or_(Delivery.status != "pending", waits)',
        "tests/faults/test_recover.py::test_recover_killed_before_and_after_its_commit",
    ),
    Mutant(
        "20",
        "a process closes once every transaction that was open at its deadline is over",
        "app/processes/barrier.py",
        "if marks[closing.id] <= oldest]",
        "if True]",
        "tests/processes/test_closing.py::test_a_vote_in_an_open_transaction_is_waited_for",
    ),
    Mutant(
        "20 late",
        "what was stored after the deadline is left out",
        "app/processes/step.py",
        "    return row.closing_at is not None and signal.at >= row.closing_at\n",
        "    return False\n",
        "tests/processes/test_closing.py::test_a_vote_that_came_late_does_not_count",
    ),
    Mutant(
        "21",
        "a state of an older version is migrated",
        "app/processes/fold.py",
        "values = spec.cls.upgrade(values, version)",
        "values = dict(values)",
        "tests/processes/test_pauses.py::test_a_state_of_an_older_version_is_migrated",
    ),
    Mutant(
        "23",
        "a platform id under the operator's credentials has to be bound",
        "app/installs/plan.py",
        "        if not manifest.plugin.needs_binding(one.config.value) and not _leans(host, manifest, one.after):\n",
        "        if True:\n",
        "tests/test_tenancy_routes.py::test_a_platform_id_beside_the_config_is_no_claim_either",
    ),
    Mutant(
        "24",
        "a page's rows and the cursor are one transaction",
        "app/mirrors/walking.py",
        "    async with use.db.begin() as session:\n        traffic = Traffic(recorder.requests)\n",
        """    async with use.db.begin() as early:
        further = __import__("json").dumps(reading.cursor.advance(reading.walk, page).to_json())
        await early.execute(
            text("UPDATE mirror_partitions SET cursor = CAST(:at AS json), reading_since = :since WHERE id = :id"),
            {"at": further, "since": reading.partition.reading_since, "id": reading.partition.id},
        )
    async with use.db.begin() as session:
        traffic = Traffic(recorder.requests)
""",
        "tests/faults/test_kill_points.py::test_work_goes_on_and_is_done_once[MIRROR_WRITTEN-mirror]",
    ),
    Mutant(
        "24 through",
        "a table is complete no further than each of its partitions",
        "app/mirrors/status.py",
        "       CASE WHEN bool_or(through IS NULL) THEN NULL ELSE min(through) END AS through,\n",
        "       max(through) AS through,\n",
        "tests/mirrors/test_complete.py::test_complete_through_is_never_past_a_gap",
    ),
    Mutant(
        "24 refused",
        "no run is clean while anything is refused",
        "app/mirrors/runs.py",
        "OR p.instance_id = {instance} AND p.status = 'refused' AND",
        "OR false AND",
        "tests/mirrors/test_refused.py::test_it_is_asked_for_again_by_sweeps_by_people_and_once_an_hour",
    ),
    Mutant(
        "24 deletions",
        "what was not found is deleted when all was read, and not before",
        "app/mirrors/pages.py",
        "    if closed and opened is not None and (",
        "    if opened is not None and (",
        "tests/mirrors/test_runs.py::test_a_row_keeps_the_time_of_its_values",
    ),
    Mutant(
        "25",
        "of two writers of an archive one is first, and the other notices",
        "app/archives/stores/filesystem.py",
        "                if self._head().version != expected.version:\n",
        "                if False:\n",
        "tests/archives/test_stores.py::test_of_two_heads_at_once_one_is_set",
    ),
    Mutant(
        "25 digest",
        "a manifest is what its name says",
        "app/archives/format.py",
        "    if digest(data) != snapshot:\n",
        "    if False:\n",
        "tests/archives/test_verify.py::test_a_flipped_bit_anywhere",
    ),
)
