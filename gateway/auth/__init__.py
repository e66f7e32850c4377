"""Authentication: from what a request shows to who is asking."""
