"""What the engine is held against: a slow engine that is plainly right, and random queries for both."""
