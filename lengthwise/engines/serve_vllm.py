"""vLLM's API server, bound to the life of the job that starts it: `python -m lengthwise.engines.serve_vllm FLAGS`.

Each process that the server starts imports its main module first. That must be this one, and with it `lengthwise`,
which ties the process to its parent at once (see `lengthwise/__init__.py`): vLLM's engine loads its plugins, where the
same is done, only once it has talked to the server, for which it would wait for ever where the server is killed before.
"""

from __future__ import annotations

import runpy

if __name__ == "__main__":
    # Without `alter_sys`: else vLLM's module would be the main one of the processes that it starts.
    runpy.run_module("vllm.entrypoints.openai.api_server", run_name="__main__")
