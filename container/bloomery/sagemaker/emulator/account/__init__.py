"""What an account may have, and what it pays."""
