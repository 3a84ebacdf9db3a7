"""The shapes of the responses of real servers, written by hand from their documentation."""
