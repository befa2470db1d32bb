"""Length curricula: the mathematics, and the orders of batches that a trainer takes."""
