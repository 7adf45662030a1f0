"""Records the training loops of other libraries. Each file is named after its library, and imports it."""
