"""`python -m prefixd`."""

from prefixd import main

main()
