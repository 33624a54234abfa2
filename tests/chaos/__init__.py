"""Every fault with every request: scripts that Hypothesis writes, and laws that hold after each."""
