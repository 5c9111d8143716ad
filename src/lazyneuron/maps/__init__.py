"""The one way to an activation map: who owns a down projection, what lies before it, which tokens are real."""
