"""The evaluation job, its tasks and their scoring."""
