"""What crosses HTTP: requests, answers, and the client that speaks them."""
