"""Tests that kill: processes get SIGKILL and SIGSTOP, Postgres is stopped hard, Valkey stopped and flushed."""
