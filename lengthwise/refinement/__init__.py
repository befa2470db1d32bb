"""Models that work on their own output: what is asked of them, round by round, and what it gained."""
