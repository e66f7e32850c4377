"""The hub: who on this process is subscribed to what, and how events reach them."""
