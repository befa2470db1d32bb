"""Length curricula as pure functions: which rows come when. No trainer takes its rows from them yet."""
