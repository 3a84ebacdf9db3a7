"""How fast and how many: what holds a request back before it is sent."""
