"""The options of each verb, and what shows a call to be wrong: imports nothing heavy, so that both are told at once."""
