"""Lengthwise: post-training language models on how long they write and think."""

import os as _os

if "LENGTHWISE_ENGINE_OWNER" in _os.environ:
    # A process that one of our engines is starting imports its main module, and so this, long before it loads
    # vLLM's plugins: armed here, it cannot outlive a job that is killed while the engine starts.
    from lengthwise.engines.orphans import die_with_parent

    die_with_parent()
