"""``python -m command_line``: how the supervisor starts its children."""

from command_line import main

main()
