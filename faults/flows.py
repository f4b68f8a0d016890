"""Lines that scenarios name on a command line."""

from __future__ import annotations

import os
import signal

from faults.scenarios.records import BAD, Made
from faults.steps import CALLER, Pace, Raise, SignalCaller, double, same
from taktline import line

os.environ.setdefault(CALLER, str(os.getpid()))

flow = line(Pace(), SignalCaller(900, signal.SIGTERM), double)
again = line(same, Raise(BAD, Made(ValueError)), double)
