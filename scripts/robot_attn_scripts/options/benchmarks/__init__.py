"""What each benchmark takes."""
