"""What runs on a node: a Ray actor that has the node's agent as a process of its own, and passes on what is said.

Its class travels by value: a node without taktline, or with another one, is to be told in a sentence and not by Ray.
"""

from __future__ import annotations

import os
import platform
import threading
from typing import Any

# What belongs to the node, whatever the caller has there.
OWN = (
    "HOME", "PATH", "TMPDIR", "USER", "LOGNAME", "SHELL", "PWD", "HOSTNAME", "LD_LIBRARY_PATH", "VIRTUAL_ENV", "PYTHONPATH",
    "CUDA_VISIBLE_DEVICES", "ROCR_VISIBLE_DEVICES", "HIP_VISIBLE_DEVICES", "NEURON_RT_VISIBLE_CORES", "TPU_VISIBLE_CHIPS",
    "ASCEND_RT_VISIBLE_DEVICES", "ONEAPI_DEVICE_SELECTOR",
)  # fmt: skip
POLL = 1.0  # seconds that a call waits for something to be said


def versions() -> tuple[str, str, str]:
    """Of Python, Ray and taktline, as they are here; empty for taktline where there is none."""
    import ray

    try:
        import taktline
    except ImportError:
        return platform.python_version(), ray.__version__, ""
    return platform.python_version(), ray.__version__, taktline.__version__


class NodeRelay:
    """One node's. Calls of its three methods run beside each other, each kind in its turn."""

    def __init__(self) -> None:
        self._agent: Any = None
        self._lock = threading.Lock()  # the agent's channel is for one thread
        self._said = threading.Condition()
        self._messages: list[tuple[Any, ...]] = []
        self._gone = ""
        self._wake = os.pipe()

    def versions(self) -> tuple[str, str, str]:
        """What is here."""
        return versions()

    def begin(self, lost_after: float, own: list[str], places: int) -> None:
        """Start the agent. `own`: variables of the environment that stay as they are here. `places`: for so many workers
        devices are reserved, which Ray has named in it; 0: none are."""
        from taktline._crew.agents_here import AgentProcess

        os.environ["TAKTLINE_OWN"] = ",".join((*OWN, *own))
        self._agent = AgentProcess(slots=1, where="", lost_after=lost_after, places=places)
        threading.Thread(target=self._listen, name="taktline", daemon=True).start()

    def _listen(self) -> None:
        from taktline._crew.agent import UNHEARD_EXIT_CODE
        from taktline._wire.channel import new_poll

        agent = self._agent
        while not self._gone:
            poll, select = new_poll()
            poll.register(self._wake[0], select.POLLIN)
            poll.register(agent.fileno(), select.POLLIN | (select.POLLOUT if agent.backed_up else 0))
            if any(descriptor == self._wake[0] for descriptor, _ in poll.poll(POLL * 1000)):
                os.read(self._wake[0], 4096)
            with self._lock:
                gone = agent.gone()
                heard = [message.out_of_band() for message in agent.hear()]
            with self._said:
                self._messages += heard
                self._gone = gone
                self._said.notify()
            del heard  # they lie in the way from the agent, whose room they take
        if agent.is_unheard:  # who drives this is cut off: the node's reservation ends here, and not when Ray finds out
            os._exit(UNHEARD_EXIT_CODE)

    def tell(self, messages: list[tuple[Any, ...]]) -> None:
        """Send these on to the agent."""
        from taktline._crew.agents_words import Parcel

        with self._lock:
            for message in messages:
                self._agent.tell(Parcel(*message))
            self._agent.flush()
            backed_up = self._agent.backed_up
        if backed_up:
            os.write(self._wake[1], b".")

    def hear(self) -> tuple[list[tuple[Any, ...]], str]:
        """What the agent has said, as soon as there is something; and why it is gone, if it is."""
        with self._said:
            if not self._messages and not self._gone:
                self._said.wait(POLL)
            messages, self._messages = self._messages, []
            return messages, self._gone

    def beat(self) -> bool:
        """Whether the agent has answered a beat since the last time; and one more beat."""
        return bool(self._agent.beat())
