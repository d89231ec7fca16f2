"""What a filter costs and brings on test anchors, beside the rules that platforms use."""
