"""Gateways as processes, and a real browser. A package, so that fixtures can be for all of it."""
