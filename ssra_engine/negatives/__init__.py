"""Hard negatives of pairs of query and document, mined from a corpus with an embedding model."""
