"""Progress displays for long work, on terminals and other streams."""
