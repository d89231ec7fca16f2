"""How well codes are used, what they keep of the items, and what they withstand."""
