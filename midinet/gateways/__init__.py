"""Optional ways in and out, each with an extra of its own: hardware ports, discovery, a broker."""
