"""The policies, driven with plain numbers."""
