"""From validation data to a threshold whose error is bounded."""
