"""The table of all rows: several seeds, what it cost, and the search over settings before it."""
