"""Download structures and properties from services that speak OPTIMADE, the field's common API."""
