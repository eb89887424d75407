"""Small hostile and odd files, made by scripts that say what each of them is."""
