"""A push gateway between message brokers and browsers.

Handlers import what they need from here::

    from gateway import Command, Event, handles
"""

from gateway.commands import Command
from gateway.events import Event
from gateway.worker.handlers import Outcome, Rejected, handles

__all__ = ["Command", "Event", "Outcome", "Rejected", "__version__", "handles"]

__version__ = "0.1.0"
