"""The HTTP service: routes, services, store and queue."""
