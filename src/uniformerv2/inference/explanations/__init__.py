"""Where in a video the network looked for a class, and the evidence for it: pictures, a page, a video."""
