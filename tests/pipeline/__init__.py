"""Collector and Prometheus for real, our middleware before them, and faults in between."""
