"""Rewards of reinforcement learning, one a file: a dataclass `Config` and `score(completion, config)`.

A score of None says that nothing could judge the completion; it then counts neither for nor against it. The name of a
file is the reward's name in a config; a user's own is a file's path or a dotted module name.
"""
