"""What talks to the outside: each adapter translates one neighbour and knows no other."""
