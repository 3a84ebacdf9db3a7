"""The three phases as plain operations: they ask for answers and hand back data."""
