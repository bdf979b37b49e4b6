"""Ground floor: what every room may use and what needs no torch."""
