"""How often, and how much at a time: rates and quotas, on all nodes together."""
