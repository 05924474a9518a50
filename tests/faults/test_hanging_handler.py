"""Row 11: a plugin's handler that hangs. Others are acknowledged as ever; it is cut off and tried again."""

from __future__ import annotations

import asyncio
import time
from pathlib import Path

from tests.faults.rig import STALL_HOOK, Platform, Rig, stalling, until
from tests.support.sink import Sink

HANGING = 10
OTHERS = 60


async def test_a_hanging_handler_is_cut_off_and_tried_again(rig: Rig, sink: Sink, tmp_path: Path) -> None:
    async with rig.client() as http:
        for number in range(HANGING):
            marker = str(tmp_path / f"tried-{number}")
            body, headers = stalling(f"hang-{number}", sleep=60, once=True, marker=marker)
            assert (await http.post(STALL_HOOK, content=body, headers=headers)).status_code == 202
        await asyncio.sleep(0.5)
        platform = Platform(http)
        started = time.monotonic()
        for number in range(OTHERS):
            await platform.send(f"other-{number}")
        slowest = max(platform.seconds)
        acknowledged = time.monotonic() - started

        async def delivered(source: str, count: int) -> bool:
            return len({post.headers["webhook-id"] for post in sink.posts if post.json["source"] == source}) == count

        others = await until(lambda: delivered("github", OTHERS), 20, "the others' events delivered")
        retried = await until(lambda: delivered("stall", HANGING), 30, "the hanging ones' events, at the second try")
        print(f"\n{OTHERS} acknowledged in {acknowledged:.2f} s, the slowest in {slowest:.3f} s")
        print(f"delivered {others:.1f} s after; the hanging ones {retried:.1f} s after those")
    assert platform.answers == {202: OTHERS}
    assert slowest < 1.0, "no acknowledgement waited for a handler"
    rows = await rig.rows("SELECT status, epoch, attempt FROM receipts WHERE plugin = 'stall'")
    assert {row["status"] for row in rows} == {"done"}
    assert {row["epoch"] for row in rows} == {2}, "the first try was cut off, the second went through"
    cut_off = rig.log.read_text().count("took longer than 3 seconds")
    assert cut_off >= HANGING, "by its time-out, and not by the end of its lease"
