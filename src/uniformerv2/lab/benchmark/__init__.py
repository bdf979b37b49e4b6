"""How fast, how large: one module a measurement, a table and a figure for each, JSON that both are made of."""
