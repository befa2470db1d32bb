"""What all tests share: signals as a terminal gives them, and no verdict by the clock."""

from __future__ import annotations

import signal

from hypothesis import settings

settings.register_profile("without_deadline", deadline=None)
settings.load_profile("without_deadline")

if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:
    # A shell starts background commands with Ctrl-C ignored, and every process below inherits that.
    signal.signal(signal.SIGINT, signal.default_int_handler)
