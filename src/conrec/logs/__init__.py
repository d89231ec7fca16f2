"""Who disliked what, and when: sources, validation, periods, anchors, Swing, candidates."""
