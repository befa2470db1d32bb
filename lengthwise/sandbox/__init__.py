"""Runs programs that a model wrote, away from everything else, and says what became of each test."""
