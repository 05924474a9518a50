"""`python -m app.cli`: the same as `metagov`, wherever the environment lies."""

from app.cli import main

main()
