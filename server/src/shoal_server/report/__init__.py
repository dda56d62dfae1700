"""Reports for people: drawings, one HTML file that needs nothing else, and the words around them."""
