"""A bundle in the formats of others: files for Neuronpedia, repositories of the hub, a page per feature."""
