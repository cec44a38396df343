"""Celery workers: they claim jobs from the database and run them in a subprocess."""
