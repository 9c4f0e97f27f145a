"""What tests of real sockets have in common."""
