"""Application Auto Scaling: targets and policies, and a scaler that acts on them."""
