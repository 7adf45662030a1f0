"""What trackdsl knows of other libraries' own loops; each file is named after its library, which it imports."""
