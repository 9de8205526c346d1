"""What a person should know of their images before a model learns from them."""
