"""What is kept of each origin: its window, its counts, its policy, within bounds."""
