"""A catalogue that grows: items that come after the codebooks, and when they no longer fit."""
