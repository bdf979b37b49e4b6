"""The network: blocks, fusion, arming of image ViTs, foreign weights, the model zoo."""
