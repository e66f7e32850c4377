"""HTTP in: commands, events, history, and the pages."""
