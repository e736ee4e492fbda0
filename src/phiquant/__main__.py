"""`python -m phiquant`."""

from phiquant.cli.main import main

main()
