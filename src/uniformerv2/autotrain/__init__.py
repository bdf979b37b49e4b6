"""``uniformerv2 train``: choose, plan, estimate, run."""
