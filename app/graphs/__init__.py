"""Graphs of communities: built from their archives by rule sets, kept as files, and served to whoever has a share."""
