"""REST over the recommender: routes, limits, problems and the server process."""
