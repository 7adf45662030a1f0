"""What delivery needs of a store, whichever it is: its interface, its errors, and what all stores have in common."""
