"""Parts of the pytest plug-in."""
