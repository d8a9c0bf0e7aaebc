"""What a gateway grants, how it counts, and what holds a harvest back."""
