"""Small stand-ins for platforms, on loopback."""
