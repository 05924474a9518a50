"""Breaks the gateway on purpose, one mechanism at a time, to see that a test notices: `make mutants`."""
