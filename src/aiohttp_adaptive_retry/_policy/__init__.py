"""Deciding: numbers in, an action out. Nothing here knows HTTP, an event loop or telemetry."""
