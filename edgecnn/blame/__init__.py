"""From raw image bytes to the first stage that differs: of our own variants, and of anybody's model file."""
