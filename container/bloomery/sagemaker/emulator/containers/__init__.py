"""What runs endpoints: their containers, from the model's data to the last signal."""
