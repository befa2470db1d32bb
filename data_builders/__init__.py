"""Builders of data sets, one a file, and the job that runs them."""
