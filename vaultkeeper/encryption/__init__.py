"""age: identities, the installation's own key, and the envelope around every stored version."""
