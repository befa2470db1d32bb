"""Scorers: measures that any task may be given, one file each; those that need a judge ask one."""
