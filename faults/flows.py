"""Lines that scenarios name on a command line."""

from __future__ import annotations

import os
import signal

from faults.scenarios.records import BAD, Made
from faults.steps import CALLER, InterruptTwice, Pace, Raise, SignalCaller, double, same
from taktline import line

os.environ.setdefault(CALLER, str(os.getpid()))

flow = line(Pace(), SignalCaller(900, signal.SIGTERM), double)
stuck = line(Pace(), InterruptTwice(400), double)
again = line(same, Raise(BAD, Made(ValueError)), double)
