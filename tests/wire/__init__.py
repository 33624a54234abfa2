"""aiohttp's traps, one by one, against real servers on loopback that count what they receive."""
