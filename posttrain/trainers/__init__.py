"""Subclasses of TRL's trainers; each imports TRL, and is imported once a job is about to train."""
