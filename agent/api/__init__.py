"""HTTP: one module a resource. A route parses, calls and renders."""
