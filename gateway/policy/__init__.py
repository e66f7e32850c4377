"""Decisions, no sockets: what may come in, and where it goes."""

from gateway.policy.compiler import Policy, load_checked

__all__ = ["Policy", "load_checked"]
