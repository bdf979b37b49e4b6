"""Live video, watched: cameras, streams, files that grow; events as soon as an action begins, goes on, ends."""
