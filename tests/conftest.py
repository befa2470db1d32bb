"""What all tests share: signals as a terminal gives them."""

from __future__ import annotations

import signal

if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:
    # A shell starts background commands with Ctrl-C ignored, and every process below inherits that.
    signal.signal(signal.SIGINT, signal.default_int_handler)
