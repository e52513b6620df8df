"""The generated world: pictures and sounds with exact truth, and questions about them."""
