"""A callback that streams another trainer's run to the service."""
