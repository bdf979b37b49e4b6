"""Serving: an engine with a bounded queue in front of predictors, and the HTTP service around it."""
