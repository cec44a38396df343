"""Tables, engines and the queries on them."""
