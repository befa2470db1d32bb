"""The tasks: one a file, named after it."""
