"""Real servers, real kills: what a person sees who starts, stops, kills and starts again."""

from __future__ import annotations

import asyncio
import json
import os
import signal
import socket
import stat
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import suppress
from pathlib import Path
from urllib.parse import parse_qs, urlsplit

import asyncpg
import psutil
import pytest
import redis
import sqlalchemy
from arq.connections import RedisSettings, create_pool
from sqlalchemy.ext.asyncio import create_async_engine

from app.core.embedded import (
    InUse,
    NotInstalled,
    Postgres,
    StartFailed,
    Valkey,
    home,
    launch,
    revive_all,
    start_all,
    stop_all,
)

AS_ROOT = os.geteuid() == 0
on_linux = pytest.mark.skipif(sys.platform != "linux", reason="death signals and capabilities are Linux's")

STARTER = """
import json, sys
from pathlib import Path
from app.core.embedded import Postgres, Valkey, start_all, stop_all
postgres, valkey = Postgres(Path(sys.argv[1])), Valkey(Path(sys.argv[1]))
start_all(postgres, valkey)
print(json.dumps([postgres.pid, valkey.pid, postgres.url]), flush=True)
sys.stdin.read()
stop_all(postgres, valkey)
"""


@pytest.fixture
def data_dir(tmp_path: Path) -> Path:
    return tmp_path / "a space, a 'quote' and ünïcode" / ("long" * 25)


@pytest.fixture
def starter(data_dir: Path) -> Iterator[tuple[subprocess.Popen[bytes], int, int, str]]:
    """Another process that runs both servers: it, their process ids, and Postgres' URL."""
    process = subprocess.Popen(
        [sys.executable, "-c", STARTER, str(data_dir)],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        start_new_session=True,
    )
    assert process.stdout is not None
    try:
        postgres_pid, valkey_pid, url = json.loads(process.stdout.readline())
        yield process, postgres_pid, valkey_pid, url
    finally:
        with suppress(subprocess.TimeoutExpired):
            process.communicate(timeout=10)
        process.kill()
        process.wait()


def query(url: str, sql: str) -> object:
    async def ask() -> object:
        connection = await asyncpg.connect(url, timeout=10)
        try:
            return await connection.fetchval(sql)
        finally:
            await connection.close()

    return asyncio.run(ask())


def wait_until(condition: Callable[[], bool], seconds: float = 10.0) -> None:
    deadline = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < deadline, "it did not happen in time"
        time.sleep(0.02)


def alive(pid: int) -> bool:
    return psutil.pid_exists(pid) and psutil.Process(pid).status() != psutil.STATUS_ZOMBIE


def family(server: Postgres | Valkey) -> list[psutil.Process]:
    parent = psutil.Process(server.pid)
    return [parent, *parent.children(recursive=True)]


def remember(url: str) -> None:
    query(url, "create table kept as select 7 as value")


def recall(url: str) -> object:
    return query(url, "select value from kept")


def test_clients_connect_by_the_urls(data_dir: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PGPORT", "1")
    monkeypatch.setenv("PGDATA", "/nowhere")
    postgres, valkey = Postgres(data_dir, fast=True), Valkey(data_dir)
    start_all(postgres, valkey)
    try:
        described = query(
            postgres.url,
            "select concat_ws(' ', datname, pg_encoding_to_char(encoding), datlocale) "
            "from pg_database where datname = current_database()",
        )
        assert described == "metagov UTF8 C.UTF-8"

        async def ask() -> tuple[object, object]:
            engine = create_async_engine(postgres.url.replace("postgresql:", "postgresql+asyncpg:", 1))
            async with engine.connect() as connection:
                one = await connection.scalar(sqlalchemy.text("select 1"))
            await engine.dispose()
            pool = await create_pool(RedisSettings.from_dsn(valkey.url))
            pong = await pool.ping()
            await pool.aclose()
            return one, pong

        assert asyncio.run(ask()) == (1, True)
        with redis.Redis.from_url(valkey.url) as client:
            assert client.ping()
    finally:
        stop_all(postgres, valkey)


@on_linux
def test_nothing_listens_on_tcp_and_sockets_are_private(data_dir: Path) -> None:
    with Postgres(data_dir, fast=True) as postgres, Valkey(data_dir) as valkey:
        for server in (postgres, valkey):
            assert not psutil.Process(server.pid).net_connections("inet")
        folder = Path(parse_qs(urlsplit(postgres.url).query)["host"][0])
        for private in (folder, Path(urlsplit(valkey.url).path).parent):
            assert stat.S_IMODE(private.stat().st_mode) == 0o700


def test_durable_unless_fast(data_dir: Path) -> None:
    with Postgres(data_dir) as postgres:
        assert query(postgres.url, "select string_agg(setting, ' ') from pg_settings where name = 'fsync'") == "on"
        assert query(postgres.url, "show synchronous_commit") == "on"
    with Postgres(data_dir, fast=True) as postgres:
        assert query(postgres.url, "show fsync") == "off"


def test_data_is_found_again_and_stop_leaves_no_process_and_no_socket(data_dir: Path) -> None:
    postgres, valkey = Postgres(data_dir, fast=True), Valkey(data_dir)
    start_all(postgres, valkey)
    remember(postgres.url)
    processes = family(postgres) + family(valkey)
    sockets = Path(urlsplit(valkey.url).path)
    stop_all(postgres, valkey)
    assert [process for process in processes if process.is_running()] == []
    assert not sockets.exists()
    assert postgres.pid is None
    with Postgres(data_dir, fast=True) as again:
        assert recall(again.url) == 7


def test_stop_ends_open_sessions(data_dir: Path) -> None:
    postgres = Postgres(data_dir, fast=True)
    postgres.start()

    async def hold() -> None:
        connection = await asyncpg.connect(postgres.url)
        await connection.execute("begin; create table unfinished ()")
        postgres.stop()
        connection.terminate()

    asyncio.run(hold())
    assert postgres.pid is None


def test_a_killed_server_is_revived_at_the_same_url(data_dir: Path) -> None:
    postgres, valkey = Postgres(data_dir), Valkey(data_dir)
    start_all(postgres, valkey)
    try:
        remember(postgres.url)
        urls = postgres.url, valkey.url
        assert revive_all(postgres, valkey) == []
        for pid in (postgres.pid, valkey.pid):
            assert pid is not None
            os.kill(pid, signal.SIGKILL)
        revived: list[str] = []

        def both() -> bool:
            revived.extend(revive_all(postgres, valkey))
            return len(revived) == 2

        wait_until(both)
        postgres.wait_ready()
        valkey.wait_ready()
        assert sorted(revived) == ["postgres", "valkey"]
        assert (postgres.url, valkey.url) == urls
        assert recall(postgres.url) == 7
    finally:
        stop_all(postgres, valkey)


def test_data_survives_a_kill_of_the_postmaster_with_a_query_running(data_dir: Path) -> None:
    """The query's backend notices nothing and lives on; the new server must not start beside it."""
    postgres = Postgres(data_dir)
    postgres.start()
    remember(postgres.url)

    async def orphan_a_backend() -> int:
        connection = await asyncpg.connect(postgres.url)
        backend = int(await connection.fetchval("select pg_backend_pid()"))
        spin = "do $$ begin loop perform 1; end loop; end $$"
        running = asyncio.ensure_future(connection.execute(spin))
        await asyncio.sleep(0.2)
        assert postgres.pid is not None
        os.kill(postgres.pid, signal.SIGKILL)
        await asyncio.sleep(0.2)
        assert alive(backend)
        postgres.stop()
        with suppress(OSError, asyncpg.PostgresError, asyncpg.InterfaceError, TimeoutError):
            await asyncio.wait_for(running, 10)
        connection.terminate()
        return backend

    backend = asyncio.run(orphan_a_backend())
    assert not alive(backend)
    with Postgres(data_dir, fast=True) as again:
        assert recall(again.url) == 7


@on_linux
def test_servers_end_when_their_starter_is_killed(
    starter: tuple[subprocess.Popen[bytes], int, int, str],
    data_dir: Path,
) -> None:
    process, postgres_pid, valkey_pid, url = starter
    remember(url)
    process.kill()
    process.wait()
    wait_until(lambda: not alive(postgres_pid) and not alive(valkey_pid))
    with Postgres(data_dir, fast=True) as again, Valkey(data_dir):
        assert recall(again.url) == 7


def test_data_survives_a_kill_of_everything(
    starter: tuple[subprocess.Popen[bytes], int, int, str],
    data_dir: Path,
) -> None:
    process, postgres_pid, valkey_pid, url = starter
    remember(url)
    children = psutil.Process(postgres_pid).children(recursive=True)
    for pid in (process.pid, postgres_pid, valkey_pid, *(child.pid for child in children)):
        with suppress(ProcessLookupError):
            os.kill(pid, signal.SIGKILL)
    postgres, valkey = Postgres(data_dir, fast=True), Valkey(data_dir)
    start_all(postgres, valkey)
    try:
        assert recall(postgres.url) == 7
    finally:
        stop_all(postgres, valkey)


def test_an_orphan_on_the_data_is_ended_before_the_new_server_starts(data_dir: Path) -> None:
    """As on systems without death signals: the first server runs on, but nobody holds its lock."""
    first = Postgres(data_dir, fast=True)
    first.start()
    remember(first.url)
    orphan = first.pid
    assert orphan is not None
    first._lock.release()
    with Postgres(data_dir, fast=True) as second:
        assert not alive(orphan)
        assert second.pid != orphan
        assert recall(second.url) == 7
        assert first._process is not None
        first._process.wait(10)


def test_a_stale_pid_file_may_name_a_living_stranger(data_dir: Path) -> None:
    """Postgres itself refuses to start then, in the data directory and at its socket alike."""
    postgres = Postgres(data_dir, fast=True)
    remember(postgres.start())
    data = data_dir / "postgres" / "data"
    owner = data.stat()
    sockets = Path(parse_qs(urlsplit(postgres.url).query)["host"][0])
    pid_file = (data / "postmaster.pid").read_text().splitlines()
    postgres.stop()
    uid, gid = (owner.st_uid, owner.st_gid) if AS_ROOT else (None, None)
    stranger = subprocess.Popen(launch.command(["sleep", "60"], death_signal=signal.SIGKILL, uid=uid, gid=gid))
    try:
        sockets.mkdir(mode=0o700)
        stale = {data / "postmaster.pid": pid_file, sockets / ".s.PGSQL.5432.lock": pid_file[:5]}
        for path, lines in stale.items():
            path.write_text("\n".join([str(stranger.pid), *lines[1:]]) + "\n")
            os.chown(path, owner.st_uid, owner.st_gid)
        with socket.socket(socket.AF_UNIX) as dead:
            dead.bind(str(sockets / ".s.PGSQL.5432"))
        with Postgres(data_dir, fast=True) as again:
            assert recall(again.url) == 7
        assert stranger.poll() is None
    finally:
        stranger.kill()
        stranger.wait()


def test_a_second_start_on_the_same_data_is_refused_in_plain_words(
    starter: tuple[subprocess.Popen[bytes], int, int, str],
    data_dir: Path,
) -> None:
    process, postgres_pid, _, url = starter
    for second in (Postgres(data_dir), Valkey(data_dir)):
        with pytest.raises(InUse, match=rf"in use by another `metagov dev` \(process {process.pid}\)"):
            second.start()
    assert alive(postgres_pid)
    assert query(url, "select 1") == 1


def test_an_interrupted_first_start_leaves_nothing_half_made(data_dir: Path) -> None:
    half = data_dir / "postgres" / "data.new"
    half.mkdir(parents=True)
    (half / "PG_VERSION").write_text("18\n")
    with Postgres(data_dir, fast=True) as postgres:
        assert query(postgres.url, "select 1") == 1
    assert not half.exists()


@pytest.mark.parametrize(
    ("version", "words"), [("17\n", r"made by Postgres 17.*--reset"), (None, "holds no Postgres data")]
)
def test_foreign_data_is_refused_with_the_mend(data_dir: Path, version: str | None, words: str) -> None:
    data = data_dir / "postgres" / "data"
    data.mkdir(parents=True)
    if version is not None:
        (data / "PG_VERSION").write_text(version)
    with pytest.raises(StartFailed, match=words):
        Postgres(data_dir).start()


def test_a_server_that_cannot_start_shows_its_log_and_frees_the_directory(data_dir: Path) -> None:
    with Postgres(data_dir, fast=True):
        pass
    settings = data_dir / "postgres" / "data" / "postgresql.auto.conf"
    settings.write_text("work_mem = 'plenty'\n")
    with pytest.raises(StartFailed, match=r"(?s)work_mem.*Its log: "):
        Postgres(data_dir, fast=True).start()
    settings.write_text("")
    with Postgres(data_dir, fast=True) as mended:
        assert query(mended.url, "select 1") == 1


@pytest.mark.parametrize(("server", "setting"), [(Postgres, "METAGOV_DATABASE_URL"), (Valkey, "METAGOV_REDIS_URL")])
def test_without_the_extra_the_mend_is_named(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, server: type[Postgres | Valkey], setting: str
) -> None:
    monkeypatch.setattr("importlib.util.find_spec", lambda _name: None)
    with pytest.raises(NotInstalled, match=rf"metagov-gateway\[embedded\].*{setting}"):
        server(tmp_path)


def test_off_the_main_thread_it_is_refused(tmp_path: Path) -> None:
    caught: list[BaseException] = []

    def start() -> None:
        try:
            Valkey(tmp_path).start()
        except RuntimeError as error:
            caught.append(error)

    thread = threading.Thread(target=start)
    thread.start()
    thread.join(10)
    assert "main thread" in str(caught[0])


def test_a_socket_folder_that_is_another_users_is_not_used(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Somebody put a link where the folder would be; what it points to is left alone."""
    target = tmp_path / "target"
    target.mkdir()
    (target / "precious").touch()
    expected = home.make_socket_dir(tmp_path, uid=os.geteuid(), gid=os.getegid())
    expected.rmdir()
    expected.symlink_to(target)
    try:
        other = home.make_socket_dir(tmp_path, uid=os.geteuid(), gid=os.getegid())
        assert other != expected
        assert (target / "precious").exists()
        other.rmdir()
    finally:
        expected.unlink()


@on_linux
@pytest.mark.skipif(not AS_ROOT, reason="only root hands its rights down")
@pytest.mark.parametrize("reachable", [True, False])
def test_under_root_postgres_has_no_more_rights_than_it_needs(reachable: bool) -> None:
    """It runs unprivileged, and may pass closed folders only where its data lies behind one."""
    with tempfile.TemporaryDirectory() as folder:
        data_dir = Path(folder)
        data_dir.chmod(0o755 if reachable else 0o700)
        with Postgres(data_dir, fast=True) as postgres:
            status = Path(f"/proc/{postgres.pid}/status").read_text()
            facts = dict(line.split(":", 1) for line in status.splitlines())
            assert "0" not in facts["Uid"].split()
            kept = int(facts["CapEff"], 16)
            assert kept == 0 if reachable else kept in {1 << 1, 1 << 2}
            assert query(postgres.url, "select 1") == 1
        assert stat.S_IMODE(data_dir.stat().st_mode) == (0o755 if reachable else 0o700)
