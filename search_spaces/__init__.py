"""Search spaces to reuse: each is a dict from the name of a setting to what may be drawn for it."""
