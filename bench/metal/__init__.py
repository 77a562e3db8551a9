"""The cost of our Metal attention on paper: Apple's chips, the roofline, and what is counted."""
