"""What a teacher language model writes: descriptions of documents, reasons for judgments."""
