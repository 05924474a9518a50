"""The operator's settings, `METAGOV_*` environment variables (API: "The contract")."""

from __future__ import annotations

from functools import cached_property
from pathlib import Path
from typing import Annotated, Literal

from cryptography.fernet import Fernet
from pydantic import Field, SecretStr, field_validator
from pydantic_settings import BaseSettings, NoDecode, SettingsConfigDict

from app.core import killpoints

CommaSeparated = Annotated[tuple[str, ...], NoDecode]


class Settings(BaseSettings):
    """Read once at start; an unusable value stops the start with the variable's name and the mend."""

    model_config = SettingsConfigDict(env_prefix="METAGOV_", extra="ignore", frozen=True, hide_input_in_errors=True)

    database_url: Annotated[str, Field(repr=False)] = ""
    """postgresql://user:password@host/name. Unset: `metagov dev` starts a Postgres of its own."""
    redis_url: Annotated[str, Field(repr=False)] = ""
    """redis://host:6379 or unix:///path. Unset: `metagov dev` starts a Valkey of its own."""
    public_url: str = "http://127.0.0.1:8000"
    """What platforms and drivers reach this service by; hook URLs start with it."""
    secret_keys: SecretStr = SecretStr("")
    """Fernet keys, comma-separated; the first encrypts, all decrypt."""
    allow_private_networks: bool = False
    """Let endpoint, callback and plugin URLs point into private networks."""
    egress_allow: CommaSeparated = ()
    """Hosts and CIDR ranges that may be reached although they are private."""
    metrics_token: SecretStr = SecretStr("")
    """Bearer token for /metrics."""
    metrics_open: bool = False
    """Serve /metrics without a token (metagov dev sets it)."""
    retention_days: Annotated[int, Field(ge=1, le=3650)] = 30
    """How long receipts, events and attempts are kept."""
    log_format: Literal["json", "console"] = "json"
    """One JSON object per line, or coloured lines for people."""
    log_level: Literal["debug", "info", "warning", "error"] = "info"
    """The least severe line that is logged."""
    database_pool: Annotated[int, Field(ge=2, le=200)] = 10
    """Connections per process and pool (each process has two pools: one for requests' reads, one for transactions)."""
    action_timeout: Annotated[float, Field(gt=0, le=600)] = 30.0
    """Seconds a plugin's action may take."""
    handler_timeout: Annotated[float, Field(gt=0, le=600)] = 30.0
    """Seconds a plugin's webhook handler, poll, render or observation may take."""
    start_timeout: Annotated[float, Field(gt=0, le=60)] = 10.0
    """Seconds a request waits for a process to start before it answers 202 `created` and the worker goes on."""
    barrier_seconds: Annotated[float, Field(ge=0, le=86400)] = 600.0
    """Seconds a process's deadline waits for webhooks that came before it and are not handled yet."""
    grace_hours: Annotated[float, Field(ge=0, le=8760)] = 24.0
    """Hours that the processes of a disabled instance wait for it to be enabled again, before they are closed."""
    mirror_pages_at_once: Annotated[int, Field(ge=1, le=100)] = 8
    """How many pages of platforms a worker reads at a time, for all mirrors together."""
    mirror_keep_answers: bool = False
    """Keep what platforms answer to mirrors, by its content, so that `metagov mirror replay` can read it again."""
    sweep_seconds: Annotated[float, Field(gt=0, le=60)] = 1.0
    """How often a worker looks for due work that no wake-up announced."""
    archive_url: str = ""
    """Where archives lie, a folder in it per community: file:///…, github://…, s3://… or ceramic+http://…"""
    archive_signing_key: SecretStr = SecretStr("")
    """Signs the manifests that are written: an Ed25519 private key, 32 bytes in base64."""
    archive_public_keys: CommaSeparated = ()
    """Whose signatures are trusted, one of which every manifest then needs: 32 bytes in base64, comma-separated."""
    archive_github_token: SecretStr = SecretStr("")
    """For github:// archives: may read and write the repository's contents."""
    archive_github_api_url: str = "https://api.github.com"
    """For github:// archives."""
    archive_s3_endpoint: str = ""
    """For s3:// archives: the store's URL; unset, Amazon's."""
    archive_s3_region: str = "us-east-1"
    """For s3:// archives."""
    archive_s3_access_key_id: SecretStr = SecretStr("")
    """For s3:// archives; unset, what the AWS environment has."""
    archive_s3_secret_access_key: SecretStr = SecretStr("")
    """For s3:// archives."""
    archive_s3_session_token: SecretStr = SecretStr("")
    """For s3:// archives, with credentials that expire."""
    archive_ceramic_key: SecretStr = SecretStr("")
    """For ceramic+http:// archives: the Ed25519 private key that controls the streams, 32 bytes in base64."""
    archive_ceramic_model: str = ""
    """For ceramic+http:// archives: the id of the model that the streams are of."""
    graph_dir: str = ""
    """A folder for graphs, the same for all processes; unset, none are built."""
    test_kill_at: str = ""
    """For tests only: the kill point at which the process kills itself (`app/core/killpoints.py`)."""

    @field_validator("egress_allow", "archive_public_keys", mode="before")
    @classmethod
    def _split(cls, value: object) -> object:
        return tuple(part.strip() for part in value.split(",") if part.strip()) if isinstance(value, str) else value

    @field_validator("secret_keys")
    @classmethod
    def _check_keys(cls, value: SecretStr) -> SecretStr:
        for position, key in enumerate(split_keys(value), start=1):
            try:
                Fernet(key)
            except ValueError as error:
                raise ValueError(
                    f"key {position} is not a Fernet key (32 bytes in URL-safe base64); make one with "
                    "`python -c 'from cryptography.fernet import Fernet; print(Fernet.generate_key().decode())'`"
                ) from error
        return value

    @field_validator("test_kill_at")
    @classmethod
    def _check_kill_point(cls, value: str) -> str:
        killpoints.parse(value)
        return value

    @field_validator("public_url")
    @classmethod
    def _check_public_url(cls, value: str) -> str:
        if not value.startswith(("http://", "https://")):
            raise ValueError("should start with http:// or https://")
        return value.rstrip("/")

    @cached_property
    def fernet_keys(self) -> tuple[str, ...]:
        """The encryption keys, first the one that encrypts."""
        return split_keys(self.secret_keys)


def split_keys(value: SecretStr) -> tuple[str, ...]:
    """The comma-separated keys, blanks left out."""
    return tuple(key.strip() for key in value.get_secret_value().split(",") if key.strip())


def load_settings(env_file: Path | None = None, **overrides: object) -> Settings:
    """Settings from the environment (and `env_file`, which only `metagov dev` passes)."""
    return Settings(_env_file=env_file, **overrides)  # type: ignore[arg-type]
