"""A semantic ID for every item: what happens where raw codes collide."""
