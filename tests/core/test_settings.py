"""The operator's settings: what is unusable stops the start, by name and with the mend."""

from __future__ import annotations

import base64
from pathlib import Path

import pytest
from pydantic import ValidationError

from app.core.db import plain_dsn
from app.core.settings import load_settings

KEYS = [base64.urlsafe_b64encode(bytes([number]) * 32).decode() for number in (1, 2)]


def test_from_the_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("METAGOV_SECRET_KEYS", f" {KEYS[0]} , {KEYS[1]},")
    monkeypatch.setenv("METAGOV_EGRESS_ALLOW", "10.0.0.0/8, intranet.example ,")
    monkeypatch.setenv("METAGOV_PUBLIC_URL", "https://gateway.example/")
    monkeypatch.setenv("METAGOV_ALLOW_PRIVATE_NETWORKS", "true")
    monkeypatch.setenv("METAGOV_NONESUCH", "x")
    settings = load_settings()
    assert settings.fernet_keys == tuple(KEYS)
    assert settings.egress_allow == ("10.0.0.0/8", "intranet.example")
    assert settings.public_url == "https://gateway.example"
    assert settings.allow_private_networks
    assert KEYS[0] not in repr(settings)


def test_passwords_in_addresses_do_not_show(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("METAGOV_DATABASE_URL", "postgresql://me:hidden@h/d")
    monkeypatch.setenv("METAGOV_REDIS_URL", "redis://me:hidden@h")
    assert "hidden" not in repr(load_settings())


def test_private_networks_are_closed_unless_opened() -> None:
    assert load_settings().allow_private_networks is False
    assert load_settings().metrics_open is False


@pytest.mark.parametrize(
    ("name", "value", "says"),
    [
        ("SECRET_KEYS", "not-a-key", "key 1 is not a Fernet key"),
        ("SECRET_KEYS", f"{'A' * 43}=,tooshort", "key 2 is not a Fernet key"),
        ("SECRET_KEYS", "k\u00e4se", "Fernet.generate_key()"),
        ("PUBLIC_URL", "gateway.example", "http://"),
        ("RETENTION_DAYS", "0", "greater than or equal to 1"),
        ("DATABASE_POOL", "many", "integer"),
        ("LOG_LEVEL", "loud", "debug"),
        ("ALLOW_PRIVATE_NETWORKS", "perhaps", "boolean"),
        ("SWEEP_SECONDS", "-1", "greater than 0"),
    ],
)
def test_unusable_values_are_named_with_the_mend(
    monkeypatch: pytest.MonkeyPatch, name: str, value: str, says: str
) -> None:
    monkeypatch.setenv(f"METAGOV_{name}", value)
    with pytest.raises(ValidationError) as caught:
        load_settings()
    (error,) = caught.value.errors(include_input=False)
    assert error["loc"] == (name.lower(),)
    assert says in error["msg"]
    if name == "SECRET_KEYS":
        assert value not in str(caught.value), "keys are not repeated"


def test_an_env_file_counts_only_where_it_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / ".env").write_text("METAGOV_PUBLIC_URL=https://file.example\n")
    monkeypatch.chdir(tmp_path)
    assert load_settings().public_url != "https://file.example"
    assert load_settings(tmp_path / ".env").public_url == "https://file.example"


@pytest.mark.parametrize(
    "url", ["postgres://h/d", "postgresql://h/d", "postgresql+asyncpg://h/d", "postgresql+psycopg://h/d"]
)
def test_database_urls_of_every_spelling(url: str) -> None:
    assert plain_dsn(url) == "postgresql://h/d"


@pytest.mark.parametrize("url", ["", "mysql://h/d", "h/d", "sqlite:///x"])
def test_other_database_urls(url: str) -> None:
    with pytest.raises(ValueError, match="METAGOV_DATABASE_URL"):
        plain_dsn(url)
