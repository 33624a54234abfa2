"""aiohttp's side of a call: what is sent, what came of it, and what has to be let go."""
