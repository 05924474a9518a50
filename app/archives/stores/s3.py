"""Archives in an S3-compatible object store: `s3://bucket/prefix`.

Objects are created with `If-None-Match: *`, HEAD is replaced with `If-Match`
(https://docs.aws.amazon.com/AmazonS3/latest/userguide/conditional-writes.html; MinIO, R2, Ceph and Garage have both).
Settings, after METAGOV_ARCHIVE_S3_: ENDPOINT, REGION, ACCESS_KEY_ID, SECRET_ACCESS_KEY, SESSION_TOKEN.
"""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator, Collection, Iterator
from contextlib import asynccontextmanager
from datetime import timedelta
from typing import TYPE_CHECKING
from urllib.parse import unquote, urlsplit

import obstore
from obstore.exceptions import AlreadyExistsError, BaseError, NotFoundError, PreconditionError
from obstore.store import S3Store

from app.archives.format import LARGEST_HEAD
from metagov_sdk.archive import ArchiveAway, ArchiveSettings, DataArchive, Head, HeadMoved, MissingObject, TooLarge

if TYPE_CHECKING:
    from obstore.store import ClientConfig, S3Config

_TIMEOUT = timedelta(seconds=60)
_RETRY = timedelta(seconds=30)
_AT_ONCE = 16
_NOTHING = "none"


class S3Archive(DataArchive):
    """A prefix of a bucket. The store's own word for an object's state is its ETag; ours is the digest."""

    def __init__(self, store: S3Store) -> None:
        self._store = store

    @classmethod
    @asynccontextmanager
    async def open(cls, url: str, below: str, settings: ArchiveSettings) -> AsyncIterator[S3Archive]:
        """A prefix below the one that the URL names. Raises ValueError for a URL without a bucket."""
        parts = urlsplit(url)
        if not parts.netloc or parts.query or parts.fragment:
            raise ValueError("an S3 archive's URL is s3://bucket/prefix; the endpoint is METAGOV_ARCHIVE_S3_ENDPOINT")
        prefix = "/".join(part for part in (unquote(parts.path).strip("/"), below) if part)
        yield cls(_connect(parts.netloc, prefix, settings))

    async def head(self) -> Head:
        """HEAD as it is now."""
        try:
            with _said_plainly("HEAD"):
                found = await obstore.get_async(self._store, "HEAD")
                if found.meta["size"] > LARGEST_HEAD:
                    raise TooLarge(f"HEAD has {found.meta['size']} bytes")
                return Head(bytes(await found.bytes_async()), found.meta["e_tag"] or "")
        except MissingObject:
            return Head(None, _NOTHING)

    async def read(self, name: str, most: int) -> bytes:
        """An object's bytes. Raises MissingObject, TooLarge, ArchiveAway."""
        with _said_plainly(name):
            found = await obstore.get_async(self._store, name)
            if found.meta["size"] > most:
                raise TooLarge(f"{name} has {found.meta['size']} bytes, {most} is the most that is read")
            return bytes(await found.bytes_async())

    async def missing(self, names: Collection[str]) -> set[str]:
        """Those that are not there."""
        few = asyncio.Semaphore(_AT_ONCE)

        async def is_missing(name: str) -> bool:
            async with few:
                try:
                    with _said_plainly(name):
                        await obstore.head_async(self._store, name)
                except MissingObject:
                    return True
                return False

        wanted = list(names)
        return {name for name, gone in zip(wanted, await asyncio.gather(*map(is_missing, wanted)), strict=True) if gone}

    async def add(self, name: str, data: bytes, *, replace: bool = False) -> bool:
        """Put an object, in one request, if there is none. Raises ArchiveAway."""
        try:
            with _said_plainly(name):
                await obstore.put_async(
                    self._store, name, data, mode="overwrite" if replace else "create", use_multipart=False
                )
        except AlreadyExistsError:
            return False
        return True

    async def move_head(self, data: bytes, expected: Head) -> None:
        """Replace HEAD, if its ETag is still the expected one. Raises HeadMoved, ArchiveAway."""
        try:
            with _said_plainly("HEAD"):
                if expected.data is None:
                    await obstore.put_async(self._store, "HEAD", data, mode="create", use_multipart=False)
                else:
                    mode: obstore.UpdateVersion = {"e_tag": expected.version}
                    await obstore.put_async(self._store, "HEAD", data, mode=mode, use_multipart=False)
        except (AlreadyExistsError, PreconditionError, MissingObject):
            # A try whose answer was lost may have set it: then what is there is ours.
            if (await self.head()).data != data:
                raise HeadMoved("another writer has set HEAD") from None


def _connect(bucket: str, prefix: str, settings: ArchiveSettings) -> S3Store:
    environment = settings.environment
    endpoint = environment.get("S3_ENDPOINT", "")
    config: S3Config = {
        "region": environment.get("S3_REGION") or "us-east-1",
        # Endpoints other than Amazon's seldom have a host name per bucket.
        "virtual_hosted_style_request": not endpoint,
        "checksum_algorithm": "SHA256",
        "conditional_put": "etag",
    }
    if endpoint:
        config["endpoint"] = endpoint
    key, secret = environment.get("S3_ACCESS_KEY_ID"), environment.get("S3_SECRET_ACCESS_KEY")
    if bool(key) != bool(secret):
        raise ValueError(
            "set both METAGOV_ARCHIVE_S3_ACCESS_KEY_ID and METAGOV_ARCHIVE_S3_SECRET_ACCESS_KEY, or neither"
        )
    if key and secret:
        config["access_key_id"], config["secret_access_key"] = key, secret
    if token := environment.get("S3_SESSION_TOKEN"):
        config["session_token"] = token
    client: ClientConfig = {"allow_http": endpoint.startswith("http://"), "timeout": _TIMEOUT}
    try:
        return S3Store(
            bucket, prefix=prefix, config=config, client_options=client, retry_config={"retry_timeout": _RETRY}
        )
    except BaseError:
        raise ValueError("the bucket, the region or METAGOV_ARCHIVE_S3_ENDPOINT is malformed") from None


@contextlib.contextmanager
def _said_plainly(name: str) -> Iterator[None]:
    try:
        yield
    except (FileNotFoundError, NotFoundError):
        raise MissingObject(f"{name} is not there") from None
    except (AlreadyExistsError, PreconditionError):
        raise
    except BaseError as error:
        # Its text names the endpoint and repeats the answer, never what the request was signed with.
        raise ArchiveAway(f"the S3 store did not take or give {name}: {str(error)[:300]}") from error
