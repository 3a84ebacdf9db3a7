"""A session elsewhere: in an archive, in a mirror, in another session."""
