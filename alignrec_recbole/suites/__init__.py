"""Many runs described by one YAML file."""
