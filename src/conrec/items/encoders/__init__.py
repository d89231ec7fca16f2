"""From what is known of an item to its embedding: texts, images, feedback, and their fusion."""
