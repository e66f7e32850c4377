"""Decisions, no sockets: what may come in, and where it goes."""

from gateway.policy.compiler import Policy, load_checked
from gateway.policy.summary import summary

__all__ = ["Policy", "load_checked", "summary"]
