"""Features of videos and of their windows, resumed where they were stopped, and the search among them."""
