"""The functions of other tracking libraries, recorded by trackdsl."""
