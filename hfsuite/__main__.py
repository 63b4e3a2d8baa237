"""`python -m hfsuite`: the command line, of the hfsuite that this Python finds."""

from hfsuite.cli import main

main()
